package hogstream

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Explainer answers why somebody is in a bucket, or is not: for a program of your own, in
// whatever process. It is safe for concurrent use.
type Explainer struct {
	*explain.Explainer
	db    *storage.DB
	admin *stream.Admin
}

// OpenExplainer connects to the database, the brokers and the registry of cfg, of which
// nothing else is needed but the defaults of ConfigFromEnv; for those that RunDev started,
// Running.FillIn has the settings.
// Without brokers the answers do not say where records stand.
func OpenExplainer(ctx context.Context, cfg Config) (x *Explainer, err error) {
	x = &Explainer{}
	defer func() {
		if err != nil {
			x.Close()
			x, err = nil, fmt.Errorf("open an explainer: %w", err)
		}
	}()
	if x.db, err = storage.Open(ctx, storage.Config{URL: cfg.Database.URL, MaxConns: cfg.Database.MaxConns}); err != nil {
		return x, err
	}
	limits := cfg.DefinitionOptions().Limits
	zone, err := cfg.Zone()
	if err != nil {
		return x, err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		x.Explainer = explain.New(x.db, nil, nil, limits, zone)
		return x, nil
	}
	registry, err := cfg.registry()
	if err != nil {
		return x, err
	}
	kafka := cfg.StreamConfig()
	kafka.Contents = registry.Codec()
	if x.admin, err = stream.OpenAdmin(kafka, zap.NewNop()); err != nil {
		return x, err
	}
	x.Explainer = explain.New(x.db, x.admin, registry.Codec(), limits, zone)
	return x, nil
}

// Close closes the connections.
func (x *Explainer) Close() {
	if x.admin != nil {
		x.admin.Close()
	}
	if x.db != nil {
		x.db.Close()
	}
}

// Why somebody cannot be explained: errors of an [Explainer].
var (
	ErrNoContact    = explain.ErrNoContact
	ErrNoBucket     = explain.ErrNoBucket
	ErrNoTransition = explain.ErrNoTransition
)
