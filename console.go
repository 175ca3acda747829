package hogstream

import (
	"context"
	"net/http"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// console makes the admin API.
func (a *App) console() (http.Handler, error) {
	replayer := stream.NewReplayer(a.admin, a.db, a.destinations)
	return console.New(console.Deps{
		DB: a.db, Webhooks: adminWebhooks{a.operations},
		Rewinds: replayer, Replays: replayer, Records: adminRecords{a.admin, a.operations},
		DeadLetters: stream.NewDeadLetters(a.admin, a.db, a.codec, adminRecords{a.admin, a.operations}.RedeliverAgain),
		Actor:       adminActor, Logger: a.tel.Logger.Logger,
	})
}

// adminActor says in the admin API's words who ingest let through.
func adminActor(ctx context.Context) console.Actor {
	caller, address := ingest.ClientFrom(ctx)
	if caller == nil {
		return console.Actor{Name: "unknown", Address: address}
	}
	actor := console.Actor{Name: caller.Name, Address: address, Details: caller.Holds(storage.ScopeFullAdmin)}
	if !caller.Bootstrap() {
		actor.KeyID = &caller.ID
	}
	return actor
}
