package hogstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
)

// alwaysEnabled are the kinds that a list of presets does not need to name.
var alwaysEnabled = []string{"webhook", "posthog"}

// EnabledKinds are the kinds of destination that may be used; nil means all.
func (c *Config) EnabledKinds() ([]string, error) {
	setting := strings.TrimSpace(c.Presets.Kinds)
	if setting == "" {
		return nil, nil
	}
	enabled := slices.Clone(alwaysEnabled)
	for _, name := range strings.Split(setting, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "*":
			return nil, nil
		case name == "none", name == "", slices.Contains(enabled, name):
		case slices.Contains(sinks.Kinds(), name):
			enabled = append(enabled, name)
		default:
			return nil, fmt.Errorf("ENABLED_DESTINATION_PRESETS: %q is no kind of destination: use *, none, or some of %s", name, strings.Join(sinks.Kinds(), ", "))
		}
	}
	return enabled, nil
}

// checkPresets says what is wrong with the settings of destinations made at a start.
func (c *Config) checkPresets() error {
	var errs []error
	if _, err := c.EnabledKinds(); err != nil {
		errs = append(errs, err)
	}
	if c.Presets.SeedPosthog && c.Presets.PosthogKey == "" {
		errs = append(errs, errors.New("ENABLE_POSTHOG_DESTINATION is on and POSTHOG_API_KEY is not set: give the project's key (phc_…), or turn it off"))
	}
	if host := c.Presets.PosthogHost; host != "" {
		if u, err := url.Parse(host); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, fmt.Errorf("POSTHOG_HOST: %q is not a URL such as https://eu.i.posthog.com", host))
		}
	}
	return errors.Join(errs...)
}

// resealDestinations seals anew what stands under an older key, so that the key can be
// left out one day. A failure is no reason not to start: the next start tries again.
func (a *App) resealDestinations(ctx context.Context) {
	resealed, err := a.destinations.ResealStale(ctx)
	if err != nil {
		a.tel.Logger.Error("destination.reseal_failed", zap.String("setting", "HOGSTREAM_ENCRYPTION_KEY"), zap.Error(err))
		return
	}
	if resealed > 0 {
		a.tel.Logger.Info("destination.resealed", zap.Int("destinations", resealed))
	}
}

// seedDestinations makes the destinations that the settings ask for. A failure is
// no reason not to start: what is there is delivered to all the same.
func (a *App) seedDestinations(ctx context.Context) {
	if !a.cfg.Presets.SeedPosthog {
		return
	}
	config := map[string]any{
		"apiKey":     a.cfg.Presets.PosthogKey,
		"eventNames": map[string]string{"email.clicked": "email.link_clicked"},
	}
	if a.cfg.Presets.PosthogHost != "" {
		config["host"] = a.cfg.Presets.PosthogHost
	}
	done, err := a.operations.Seed(ctx, destinations.Seed{
		Name: "posthog", Kind: "posthog", Description: "Made at a start (ENABLE_POSTHOG_DESTINATION)",
		EventTypes: []string{
			schemas.FactEmailSent, schemas.FactEmailDelivered, schemas.FactEmailOpened,
			schemas.FactEmailClicked, schemas.FactEmailBounced, schemas.FactEmailComplained,
		},
		Config: config, Follow: []string{"apiKey", "host"},
	})
	if err != nil {
		a.tel.Logger.Error("destination.seed_failed", zap.String("setting", "ENABLE_POSTHOG_DESTINATION"), zap.Error(err))
		return
	}
	a.tel.Logger.Info("destination.seeded", zap.String("name", "posthog"), zap.String("outcome", string(done)))
}

// Booleans teaches kong the words for on and off that people write into the
// environment. Anything else is an error that names the variable.
func Booleans() kong.Option { return kong.KindMapper(reflect.Bool, booleans{}) }

type booleans struct{}

// Decode implements kong.Mapper.
func (booleans) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	switch value := ctx.Scan.Pop().Value.(type) {
	case bool:
		target.SetBool(value)
		return nil
	case string:
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "true", "1", "yes", "on":
			target.SetBool(true)
			return nil
		case "false", "0", "no", "off":
			target.SetBool(false)
			return nil
		}
	}
	return errors.New("use true, 1, yes or on, or false, 0, no or off")
}

// IsBool implements kong.BoolMapper: the flag needs no value.
func (booleans) IsBool() bool { return true }
