package derive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Filling is a processor whose states are filled when its definitions change. Implemented
// by *Frame.
type Filling interface {
	Name() string
	FillVersion(ctx context.Context, tx *storage.Tx) (int64, error)
}

// KickerConfig is what a Kicker needs. All but Logger and Registerer are required.
type KickerConfig struct {
	DB         *storage.DB
	Log        stream.Appender
	Processors []Filling

	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Kicker begins fillings, and gets those going again that lost their signal. A filling
// asks for its own next step; one signal too many does nothing, so there may be a Kicker in
// each process that runs processors.
type Kicker struct {
	cfg   KickerConfig
	wake  chan struct{}
	ratio *prometheus.GaugeVec
}

// stillLong is for how long a filling does not move before it is taken for lost, and how
// often that is looked for.
const stillLong = 30 * time.Second

// NewKicker makes a Kicker.
func NewKicker(cfg KickerConfig) (*Kicker, error) {
	if cfg.DB == nil || cfg.Log == nil {
		return nil, errors.New("derive: DB and Log are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	k := &Kicker{cfg: cfg, wake: make(chan struct{}, 1), ratio: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "hogstream", Subsystem: "derive", Name: "fill_ratio",
		Help: "How much of a derived processor's contacts is filled with the definitions in use, by partition on the average: 1 when all are.",
	}, []string{"processor"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(k.ratio); err != nil {
			return nil, fmt.Errorf("derive: register figures: %w", err)
		}
	}
	return k, nil
}

// Run looks at the beginning, when definitions change, and every half a minute, until ctx
// ends, and returns nil then.
func (k *Kicker) Run(ctx context.Context) error {
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() {
		_ = k.cfg.DB.Listen(ctx, storage.ChannelDefinitions, func(string) { stream.Signal(k.wake) })
	})
	ticker := time.NewTicker(stillLong)
	defer ticker.Stop()
	for {
		for _, p := range k.cfg.Processors {
			if err := k.look(ctx, p); err != nil && ctx.Err() == nil {
				k.cfg.Logger.Warn("derive.kick_failed", zap.String("processor", p.Name()), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-ticker.C:
		}
	}
}

// look asks for the next steps of those fillings of a processor that do not go on by themselves.
func (k *Kicker) look(ctx context.Context, p Filling) error {
	var version int64
	err := k.cfg.DB.InTx(ctx, func(tx *storage.Tx) (err error) {
		version, err = p.FillVersion(ctx, tx)
		if err != nil || version == 0 {
			return err
		}
		return tx.PassEmptyPartitions(ctx, p.Name(), version)
	})
	if err != nil || version == 0 {
		return err
	}
	parts, err := k.cfg.DB.FillParts(ctx, p.Name(), version)
	if err != nil {
		return err
	}
	var signals []schemas.Message
	var fresh []int32
	for i := range parts {
		if part := &parts[i]; lost(part, version) {
			if part.Version < version {
				fresh = append(fresh, part.Partition)
			}
			part.Version = version
			signal := fillSignal(p.Name(), part.First, &part.Fill)
			signal.OccurredAt = time.Now()
			signals = append(signals, signal)
		}
	}
	k.ratio.WithLabelValues(p.Name()).Set(ratio(parts))
	if len(signals) == 0 {
		return nil
	}
	if len(fresh) > 0 {
		if err := k.cfg.DB.CountToFill(ctx, p.Name(), version, fresh); err != nil {
			return err
		}
	}
	k.cfg.Logger.Info("derive.fill", zap.String("processor", p.Name()), zap.Int64("version", version), zap.Int("partitions", len(signals)))
	return k.cfg.Log.Append(ctx, signals...)
}

// lost says that nobody will ask for the next step of a filling: it has not begun, or has
// not moved for long.
func lost(p *storage.FillPart, version int64) bool {
	switch {
	case p.Done, p.First == "", p.TakingOver, p.Version > version:
		return false
	}
	return p.Version < version || p.Still >= stillLong
}

// ratio is how much is filled: partitions are about as large as one another.
func ratio(parts []storage.FillPart) float64 {
	if len(parts) == 0 {
		return 0
	}
	sum := 0.0
	for i := range parts {
		switch p := &parts[i]; {
		case p.Through():
			sum++
		case p.Total > 0:
			sum += min(float64(p.Passed)/float64(p.Total), 1)
		}
	}
	return sum / float64(len(parts))
}
