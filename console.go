package hogstream

import (
	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

// console makes the routes of the admin API.
func (a *App) console() ([]web.Route, error) {
	replayer := replay.NewReplayer(a.admin, a.db, a.destinations)
	return console.Routes(console.Deps{
		DB: a.db, Webhooks: adminWebhooks{a.operations},
		Rewinds: replayer, Replays: replayer, Records: adminRecords{a.admin, a.operations},
		DeadLetters: replay.NewDeadLetters(a.admin, a.db, a.codec, adminRecords{a.admin, a.operations}.RedeliverAgain),
		Logger:      a.tel.Logger.Logger,
	})
}
