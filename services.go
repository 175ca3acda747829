package hogstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/timers"
)

// services builds what the roles of this process need to run, besides the API.
func (a *App) services() ([]service, error) {
	services := []service{{"definitions", a.definitions.Run}, {"definitions in use", a.watchDefinitions}}
	if a.cfg.Definitions.Dir != "" {
		services = append(services, service{"definition files", a.watchFiles})
	}
	if a.cfg.Plays(RoleProcessors) {
		loops, filling, err := a.processors()
		if err != nil {
			return nil, err
		}
		services = append(services, loops...)
		if len(a.added.coded) > 0 {
			jobs, err := a.journeyJobs()
			if err != nil {
				return nil, err
			}
			services = append(services, jobs)
		}
		ticker, err := timers.New(timers.Config{DB: a.db, Log: a.log, Behind: a.numbersBehind, Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics})
		if err != nil {
			return nil, err
		}
		services = append(services, service{"timers", ticker.Run})
		watch, err := derive.NewWatch(a.db, a.admin, a.tel.Logger.Logger, a.tel.Metrics)
		if err != nil {
			return nil, err
		}
		kicker, err := derive.NewKicker(derive.KickerConfig{DB: a.db, Log: a.log, Processors: filling, Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics})
		if err != nil {
			return nil, err
		}
		err = errors.Join(a.tel.Metrics.Register(newBucketMembers(a.db, a.tel.Logger.Logger)), a.tel.Metrics.Register(newLiveRuns(a.db, a.tel.Logger.Logger)))
		if err != nil {
			return nil, fmt.Errorf("register figures: %w", err)
		}
		services = append(services, service{"derived state", watch.Run}, service{"filling", kicker.Run})
		services = append(services, service{"maintenance", a.maintain}, service{"erasure", a.clearErased}, service{"contact partitions", a.placeContacts})
	}
	if a.cfg.Plays(RoleSinks) {
		delivery, err := a.delivery()
		if err != nil {
			return nil, err
		}
		services = append(services, delivery)
	}
	return services, nil
}

// journeyJobs does what journeys in Go have done outside of their processor.
func (a *App) journeyJobs() (service, error) {
	drain := time.Duration(0) // its default
	if a.cfg.Dev {
		drain = devDrain
	}
	settings, err := a.cfg.processorSettings()
	if err != nil {
		return service{}, err
	}
	workers, err := journeys.NewWorkers(journeys.WorkersConfig{
		Options: journeys.Options{Zone: settings.Zone, Coded: a.added.coded}, DB: a.db, Log: a.log, Concurrency: a.cfg.Data.JourneyJobs,
		Lease: a.cfg.Delivery.Lease, Drain: drain,
		Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics,
	})
	if err != nil {
		return service{}, err
	}
	return service{"journey jobs", workers.Run}, nil
}

// noteBeginnings notes where processors that derive begin, before contacts of this process
// says anything: so in a new deployment nobody is known then, and all that happens is told.
func (a *App) noteBeginnings(ctx context.Context) error {
	if !a.cfg.Plays(RoleProcessors) {
		return nil
	}
	passes := func(err error) bool { return stream.IsUnavailable(err) || storage.IsUnavailable(err) }
	return a.retry(ctx, "Kafka or Postgres", passes, func(ctx context.Context) error {
		for _, line := range processors.All() {
			if !line.Derives() || line.Needed != nil && !line.Needed(a.definitions.Set()) {
				continue
			}
			if err := loop.NoteBeginning(ctx, a.admin, a.db, line.Name, line.Topics); err != nil {
				return err
			}
		}
		return nil
	})
}

// numbersBehind says who, of those that say in what order things happened to contacts, has
// not yet applied what stands on the log since before a time.
func (a *App) numbersBehind(ctx context.Context, before time.Time) (string, error) {
	return a.admin.Behind(ctx, processors.Numbering(), before)
}

// processors are the loops, and those processors that are filled when definitions change.
func (a *App) processors() (services []service, filling []derive.Filling, err error) {
	incarnation := ""
	if a.ownBroker != nil { // it died with the last process
		incarnation = uuid.NewString()[:8]
	}
	settings, err := a.cfg.processorSettings()
	if err != nil {
		return nil, nil, err
	}
	deps := processors.Deps{Settings: settings, Codec: a.codec, Definitions: a.definitions, Limits: a.cfg.DefinitionOptions().Limits, Registerer: a.tel.Metrics, Followers: processors.Followers(), Coded: a.added.coded}
	if a.ownBroker != nil {
		deps.Repeats = repeatedTransactions * a.cfg.Data.BatchRecords
	}
	if a.programs, err = program.New(a.tel.Logger.Logger, nil); err != nil {
		return nil, nil, err
	}
	deps.Programs = a.programs
	for _, line := range processors.All() {
		p, err := line.New(deps)
		if err != nil {
			return nil, nil, err
		}
		loop, err := loop.New(loop.Config{
			Kafka: a.kafka(), DB: a.db, Encoder: a.codec, Processor: p,
			Workers: a.cfg.Data.Workers, MaxBatchRecords: a.cfg.Data.BatchRecords,
			SessionTimeout: a.cfg.Kafka.SessionTimeout, Incarnation: incarnation,
			Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics,
		})
		if err != nil {
			return nil, nil, err
		}
		o := &onNeed{app: a, line: line, run: loop.Run}
		if f, ok := p.(derive.Filling); ok {
			filling = append(filling, fillsWhenBegun{f, o})
		}
		a.ready = append(a.ready, check{"processor " + p.Name(), func(context.Context) error {
			if o.line.Needed != nil && !o.begun.Load() {
				return nil
			}
			return processorState(loop)
		}})
		services = append(services, service{"processor " + p.Name(), o.Run})
	}
	return services, filling, nil
}

// repeatedTransactions is how many batches of records may lie between a record and its
// repetition: a batch of identity has up to three outputs a record, and what was on its
// way comes in between.
const repeatedTransactions = 4

func (a *App) delivery() (service, error) {
	drain := time.Duration(0) // its default
	if a.cfg.Dev {
		drain = devDrain
	}
	kafka := a.kafka()
	kafka.Contents = a.codec
	s, err := delivery.NewSinks(delivery.Config{
		Drain:    drain,
		Instance: a.cfg.Instance, InstanceID: a.instanceID(),
		Lease: a.cfg.Delivery.Lease, Renew: a.cfg.Delivery.LeaseRenewal, Deadline: a.cfg.Delivery.Timeout,
		SessionTimeout: a.cfg.Kafka.SessionTimeout, Concurrency: a.cfg.Delivery.Concurrency,
		RetryHorizon: a.cfg.Delivery.RetryHorizon, DeliveryLog: a.cfg.Delivery.Log, LogRetention: a.cfg.Delivery.LogRetention,
	}, delivery.Deps{
		Kafka: kafka, DB: a.db, Appender: a.log, Codec: a.codec, Deliverer: a.deliverer,
		Destinations: a.destinations, Log: a.tel.Logger.Logger, Registerer: a.tel.Metrics,
	})
	if err != nil {
		return service{}, err
	}
	return service{"sinks", s.Run}, nil
}

// devDrain is for how long deliveries in flight hold up the end of dev mode, which
// takes 5 s at most. What is cut off is sent again after the next start.
const devDrain = 2 * time.Second

// openSinks makes what both delivery and the admin API need of destinations.
func (a *App) openSinks() (err error) {
	networks, err := a.cfg.AllowedNetworks()
	if err != nil {
		return err
	}
	proxy, err := a.cfg.DeliveryProxy()
	if err != nil {
		return err
	}
	if a.zone, err = a.cfg.Zone(); err != nil {
		return err
	}
	kinds, err := a.cfg.EnabledKinds()
	if err != nil {
		return err
	}
	if kinds != nil {
		for _, own := range a.added.kinds {
			kinds = append(kinds, own.Name)
		}
	}
	a.deliverer, err = sinks.New(sinks.Config{
		Version: Version, Kinds: kinds, OwnKinds: a.added.kinds, Timeout: a.cfg.Delivery.Timeout,
		Lines: a.cfg.Log.Attempts, AllowLoopback: a.cfg.Dev, AllowHTTP: a.cfg.Dev, AllowNetworks: networks, Proxy: proxy,
		Memberships: a.db.BucketsOf, Zone: a.zone,
		Own: &sinks.OwnKafka{Owns: a.admin.Config.Owns, ClusterID: a.admin.ClusterID},
	}, a.codec, a.tel.Logger.Logger, a.tel.Metrics)
	if err != nil {
		return fmt.Errorf("open sinks: %w", err)
	}
	a.destinations = storage.NewDestinations(a.db, a.box)
	a.operations = destinations.New(a.db, a.destinations, a.admin, a.deliverer, a.tel.Logger.Logger)
	return nil
}
