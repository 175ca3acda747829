package version_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/examples/newcomer/version"
	"github.com/hogstream/hogstream/web"
)

func TestTheRouteTellsTheVersionAndTakesNothing(t *testing.T) {
	table, err := web.Compile(web.About{}, version.Routes("1.2.3"))
	require.NoError(t, err)
	handler := web.NewEdge(web.Config{}, zap.NewNop()).Exchanges(web.Handle(table.Routes[0].Serve))
	for target, want := range map[string]string{"/v1/admin/version": `{"version":"1.2.3"}`, "/v1/admin/version?misspelt=1": "misspelt"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		require.Contains(t, w.Body.String(), want)
	}
}
