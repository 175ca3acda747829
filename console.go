package hogstream

import (
	"context"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

// console makes the routes of the admin API.
func (a *App) console() []web.Route {
	replayer := replay.NewReplayer(a.admin, a.db, a.destinations)
	return console.Routes(console.Deps{
		DB: a.db, Destinations: a.operations,
		Rewinds: replayer, Replays: replayer, Records: records{a.admin},
		DeadLetters: replay.NewDeadLetters(a.admin, a.db, a.codec, a.operations.Redeliver),
		Missing: func(versions []storage.JourneyVersion) map[string]error {
			return journeys.Missing(versions, journeys.Options{Limits: a.cfg.DefinitionOptions().Limits, Zone: a.zone, Coded: a.added.coded})
		},
		Explain: explain.New(a.db, a.admin, a.codec, a.cfg.DefinitionOptions().Limits, a.zone),
		Checked: a.cfg.DefinitionOptions(), Foresee: a.foreseePlan,
		Values: a.codec, Log: a.log, Logger: a.tel.Logger.Logger,
	})
}

// records reads single records of the log.
type records struct{ admin *stream.Admin }

// ReadRecord implements console.Records.
func (r records) ReadRecord(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error) {
	return reader.ReadRecord(ctx, r.admin, topic, partition, offset)
}

// FindRecord implements console.Records.
func (r records) FindRecord(ctx context.Context, id string) (*stream.Record, error) {
	return reader.FindRecord(ctx, r.admin, id, reader.SoughtByID, schemas.FedTopics()...)
}
