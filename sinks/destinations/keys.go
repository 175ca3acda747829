package destinations

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/storage"
)

// adopt puts keys in place that were given, instead of those that were made; "" leaves
// what is there.
func adopt(kind *sinks.Kind, d *storage.Destination, secret, key string) error {
	if secret != "" {
		switch {
		case !kind.Signed:
			return &InvalidError{"secret", fmt.Sprintf("a destination of kind %s signs nothing: leave it out", d.Kind)}
		case strings.HasPrefix(secret, signing.PrivateKeyPrefix), strings.HasPrefix(secret, signing.PublicKeyPrefix):
			return &InvalidError{"secret", "is an ed25519 key: write the private one (whsk_…) as signingKey, with config.ed25519"}
		}
		if _, err := signing.ParseSecret(secret); err != nil {
			return invalid(err)
		}
		d.Secret = signing.SecretPrefix + strings.TrimPrefix(secret, signing.SecretPrefix)
	}
	if key == "" {
		return nil
	}
	if !signsEd25519(d) {
		return &InvalidError{"signingKey", "is used by webhooks with config.ed25519: set that to true, or leave the key out"}
	}
	imported, err := signing.ImportKey(key)
	if err != nil {
		return &InvalidError{"signingKey", err.Error()}
	}
	d.SigningKey = imported
	return nil
}

// signsEd25519 reports whether the settings ask for the asymmetric signature.
func signsEd25519(d *storage.Destination) bool {
	var cfg struct {
		Ed25519 bool `json:"ed25519"`
	}
	return d.Kind == sinks.Webhook && len(d.Config) > 0 && json.Unmarshal(d.Config, &cfg) == nil && cfg.Ed25519
}

// equip gives a destination of a kind, nil for an unknown one, the keys that its settings ask for, and takes those that
// they do not. It returns the secret if it has made one.
func equip(kind *sinks.Kind, d *storage.Destination) (made string) {
	switch {
	case kind == nil:
	case !kind.Signed:
		d.Secret, d.PreviousSecret, d.PreviousSecretUntil = "", "", nil
	case d.Secret == "":
		made = signing.NewSecret()
		d.Secret = made
	}
	switch {
	case !signsEd25519(d):
		d.SigningKey, d.PreviousSigningKey = "", ""
	case d.SigningKey == "":
		d.SigningKey = signing.NewKey()
	}
	return made
}
