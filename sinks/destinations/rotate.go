package destinations

import (
	"context"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/storage"
)

// rotationOverlap is how long the keys before go on signing unless a rotation says it.
const rotationOverlap = 24 * time.Hour

// Rotation is what a destination shall sign with from now on.
type Rotation struct {
	// Overlap is how long the keys before go on signing beside the new ones; nil for
	// the default, 24 h; 0 ends it at once.
	Overlap *time.Duration
	// Secret and SigningKey are the new ones; empty has them made.
	Secret, SigningKey string
	// Force rotates although the keys before those of now still sign: they end at once.
	Force bool
}

// RotatingError says that the rotation before has not come to its end.
type RotatingError struct {
	// Until is when the keys before those of now end.
	Until time.Time
}

// Error implements error.
func (e *RotatingError) Error() string {
	return "a rotation is under way: the secret before the present one signs until " + e.Until.UTC().Format(time.RFC3339)
}

// RotateSecret gives a destination a new secret and, if it signs with one, a new
// ed25519 key. Those before go on signing beside them for a while, so that the
// receiver can change over without losing anything. Only one stands beside them: while
// those of the rotation before do, another one is a [*RotatingError] unless forced.
func (o *Operations) RotateSecret(ctx context.Context, nameOrID string, r Rotation) (*Created, error) {
	grace := rotationOverlap
	if r.Overlap != nil {
		grace = *r.Overlap
	}
	if grace < 0 || grace > 30*24*time.Hour {
		return nil, &InvalidError{"overlap", "must be between 0 and 30 days"}
	}
	d, err := o.change(ctx, nameOrID, func(d *storage.Destination) error {
		kind, err := o.kind(d)
		if err != nil {
			return err
		}
		if !kind.Signed {
			return &InvalidError{"kind", fmt.Sprintf("%s signs nothing, so there is no secret to rotate", d.Kind)}
		}
		if until := d.PreviousSecretUntil; until != nil && until.After(time.Now()) && d.PreviousSecret != "" && !r.Force {
			return &RotatingError{*until}
		}
		d.PreviousSecret, d.PreviousSecretUntil, d.PreviousSigningKey = "", nil, ""
		if grace > 0 && d.Secret != "" {
			until := time.Now().Add(grace)
			d.PreviousSecret, d.PreviousSecretUntil, d.PreviousSigningKey = d.Secret, &until, d.SigningKey
		}
		before := d.Secret
		d.Secret, d.SigningKey = "", ""
		equip(kind, d)
		if err := adopt(kind, d, r.Secret, r.SigningKey); err != nil {
			return err
		}
		if d.Secret == before {
			return &InvalidError{"secret", "is the one that it has: write another one, or leave it out to have one made"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Created{View: o.view(d), Secret: d.Secret}, nil
}
