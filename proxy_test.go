package hogstream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

func TestAProxyThatCannotBeUsedIsNamedByItsSettingAndNotShown(t *testing.T) {
	cfg := hogstream.Config{Delivery: hogstream.DeliveryConfig{ProxyURL: "ftp://user:hunter2@proxy:3128"}}
	err := cfg.ValidateServing()
	require.ErrorContains(t, err, "DELIVERY_PROXY_URL names no kind of proxy: begin it with http://")
	require.NotContains(t, err.Error(), "hunter2")
	_, err = cfg.DeliveryProxy()
	require.Error(t, err)

	cfg.Delivery.ProxyURL = "http://user:hunter2@proxy:3128"
	require.NotContains(t, cfg.ValidateServing().Error(), "DELIVERY_PROXY_URL")
	proxy, err := cfg.DeliveryProxy()
	require.NoError(t, err)
	require.Equal(t, "proxy:3128", proxy.Host)

	cfg.Delivery.ProxyURL = ""
	proxy, err = cfg.DeliveryProxy()
	require.NoError(t, err)
	require.Nil(t, proxy)
}
