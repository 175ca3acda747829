package replay

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// BackfillRequest says what a destination is to be sent again, beside what it is
// sent live.
type BackfillRequest struct {
	// From and To are as in a RewindRequest. From is `start` when empty; To is
	// where the destination stands now when empty or `live`.
	From, To string
	// Types narrows what the destination subscribes to, Keys to some contact ids.
	Types, Keys []string
	// Rate is records a second, 0 for no limit of its own.
	Rate   float64
	DryRun bool
}

// Backfilled is what a backfill will send and, unless it was a dry run, the one
// that has begun.
type Backfilled struct {
	Preview Preview   `json:"preview"`
	Replay  *Backfill `json:"replay"`
}

// Backfill is how far a backfill is.
type Backfill struct {
	ID            string   `json:"id"`
	DestinationID string   `json:"destinationId"`
	Status        string   `json:"status" enum:"running,paused,finished,cancelled"`
	From          string   `json:"from"`
	To            string   `json:"to"`
	Types         []string `json:"types"`
	Keys          []string `json:"keys"`
	Rate          float64  `json:"rate"`
	// Records is how many there are to send, by the preview; Offsets count places
	// of the log, those included that are not wanted.
	Records      int64 `json:"records"`
	OffsetsTotal int64 `json:"offsetsTotal"`
	OffsetsDone  int64 `json:"offsetsDone"`
	// Parked is how many records wait to be tried again, and ParkedKeys of how many
	// contacts: they count among OffsetsDone, and the backfill ends when none are left.
	Parked     int `json:"parked"`
	ParkedKeys int `json:"parkedKeys"`
	// Progress is from 0 to 1. EtaSeconds is nil while there is nothing to go by.
	Progress      float64          `json:"progress"`
	EtaSeconds    *float64         `json:"etaSeconds"`
	ActiveSeconds float64          `json:"activeSeconds"`
	CreatedAt     schemas.ISOTime  `json:"createdAt" format:"date-time"`
	EndedAt       *schemas.ISOTime `json:"endedAt" format:"date-time"`
}

func backfillOf(r *storage.Replay) *Backfill {
	b := &Backfill{
		ID: r.ID, DestinationID: r.DestinationID, Status: string(r.Status), From: r.From, To: r.To, Types: r.Types, Keys: r.Keys,
		Rate: r.Rate, Records: r.Records, OffsetsTotal: r.OffsetsTotal, OffsetsDone: r.OffsetsDone, Progress: 1,
		Parked: r.Parked, ParkedKeys: r.ParkedKeys, ActiveSeconds: r.Active.Seconds(), CreatedAt: schemas.ISOTime{Time: r.CreatedAt}, EndedAt: schemas.ISOTimeOf(r.EndedAt),
	}
	if b.Types == nil {
		b.Types = []string{}
	}
	if b.Keys == nil {
		b.Keys = []string{}
	}
	if r.OffsetsTotal > 0 {
		b.Progress = float64(r.OffsetsDone) / float64(r.OffsetsTotal)
	}
	if r.Status == storage.ReplayRunning && r.OffsetsDone > 0 && (r.OffsetsDone < r.OffsetsTotal || r.Parked == 0) {
		eta := b.ActiveSeconds * float64(r.OffsetsTotal-r.OffsetsDone) / float64(r.OffsetsDone)
		b.EtaSeconds = &eta
	}
	return b
}

// Backfill previews what would be sent and, unless the request is a dry run, begins
// to send it: by the owners of the partitions, whichever processes they are, until
// it is through, paused or cancelled. Errors as Rewind.
func (r *Replayer) Backfill(ctx context.Context, id string, req BackfillRequest) (*Backfilled, error) {
	d, err := r.destination(ctx, id)
	if err != nil {
		return nil, err
	}
	req.From, req.To = r.pinned(req.From), r.pinned(req.To)
	w, topics, err := wantedOf(d, req)
	if err != nil {
		return nil, err
	}
	ranges, err := r.backfillRanges(ctx, id, req, topics)
	if err != nil {
		return nil, err
	}
	preview, err := preview(ctx, r.admin, ranges, w, slowest(req.Rate, d.RateLimit))
	if err != nil || req.DryRun {
		return &Backfilled{Preview: preview}, err
	}
	replay := &storage.Replay{
		ID: uuid.Must(uuid.NewV7()).String(), DestinationID: id, From: req.From, To: req.To,
		Types: req.Types, Keys: req.Keys, Rate: req.Rate, Records: preview.Records,
	}
	stream.SetDefault(&replay.From, "start")
	stream.SetDefault(&replay.To, "live")
	cursors := make([]storage.CursorRange, 0, len(ranges))
	for _, c := range ranges {
		cursors = append(cursors, storage.CursorRange{Topic: string(c.Key.Topic), Partition: c.Key.Partition, From: c.From, To: c.To, TopicID: c.ID})
	}
	err = r.db.InRetriedTx(ctx, func(tx *storage.Tx) error { return tx.CreateReplay(ctx, replay, cursors) })
	if err != nil {
		return nil, err
	}
	return &Backfilled{Preview: preview, Replay: backfillOf(replay)}, nil
}

// wantedOf is what the backfill takes, and on which topics that lies.
func wantedOf(d *storage.Destination, req BackfillRequest) (reader.Wanted, []schemas.Topic, error) {
	subscription, err := schemas.ParseSubscription(d.EventTypes)
	if err != nil {
		return reader.Wanted{}, nil, fmt.Errorf("destination %s: %w", d.Name, err)
	}
	w, topics := reader.Wanted{Subscription: subscription}, schemas.Replayable(subscription.Topics())
	if len(topics) == 0 {
		return reader.Wanted{}, nil, &Error{"types", sentOnce}
	}
	if len(req.Types) > 0 {
		types, err := schemas.ParseSubscription(req.Types)
		if err != nil {
			return reader.Wanted{}, nil, &Error{"types", err.Error()}
		}
		if types.WantsOutbox() {
			return reader.Wanted{}, nil, &Error{"types", sentOnce}
		}
		w.Types = &types
		topics = slices.DeleteFunc(slices.Clone(topics), func(t schemas.Topic) bool { return !slices.Contains(types.Topics(), t) })
		if len(topics) == 0 {
			return reader.Wanted{}, nil, &Error{"types", fmt.Sprintf("the destination subscribes to %v only: name types among those, or subscribe it first", d.EventTypes)}
		}
	}
	if req.Rate != 0 && !(req.Rate >= storage.LeastRate) {
		return reader.Wanted{}, nil, &Error{"rate", fmt.Sprintf("must be 0 (no limit), or at least %g records a second", storage.LeastRate)}
	}
	for _, k := range req.Keys {
		w.Keys = append(w.Keys, []byte(k))
	}
	return w, topics, nil
}

// backfillRanges are the parts of the log between the two places.
func (r *Replayer) backfillRanges(ctx context.Context, id string, req BackfillRequest, topics []schemas.Topic) ([]reader.LogRange, error) {
	from, to := req.From, req.To
	stream.SetDefault(&from, "start")
	starts, _, err := r.resolve(ctx, "from", from, topics)
	if err != nil {
		return nil, err
	}
	var ends []storage.CursorStart
	if to == "" || to == "live" {
		ends, err = r.livePlaces(ctx, id, topics)
	} else {
		ends, _, err = r.resolve(ctx, "to", to, topics)
	}
	if err != nil {
		return nil, err
	}
	on := partitionsOf(req.Keys, starts)
	return slices.DeleteFunc(rangesTo(starts, ends), func(l reader.LogRange) bool {
		return l.From >= l.To || len(req.Keys) > 0 && !on[l.Key.Partition]
	}), nil
}

// livePlaces is where the destination stands: what lies before was sent, or was
// appended before it was there.
func (r *Replayer) livePlaces(ctx context.Context, id string, topics []schemas.Topic) ([]storage.CursorStart, error) {
	ends, err := r.admin.EndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	cursors, err := r.liveCursors(ctx, id)
	if err != nil {
		return nil, err
	}
	for i, m := range movesOf(cursors, ends) {
		if m.former {
			return nil, &Error{"to", fmt.Sprintf("the destination stands on the log of a former topic %s, for it was deleted and made anew: rewind it first, or name an end", m.Topic)}
		}
		ends[i].Offset = min(m.From, m.To)
	}
	return ends, nil
}

// partitionsOf are the partition numbers that keys are on.
func partitionsOf(keys []string, starts []storage.CursorStart) map[int32]bool {
	var n int32
	for _, s := range starts {
		n = max(n, s.Partition+1)
	}
	on := map[int32]bool{}
	for _, k := range keys {
		on[stream.PartitionOf([]byte(k), int(n))] = true
	}
	return on
}

func slowest(a, b float64) float64 {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// Replays lists the backfills of a destination, newest first.
func (r *Replayer) Replays(ctx context.Context, id string, limit int) ([]*Backfill, error) {
	if _, err := r.destination(ctx, id); err != nil {
		return nil, err
	}
	list, err := r.db.ListReplays(ctx, id, limit)
	if err != nil {
		return nil, err
	}
	out := make([]*Backfill, len(list))
	for i := range list {
		out[i] = backfillOf(&list[i])
	}
	return out, nil
}

// Replay returns one backfill of a destination, or ErrNoReplay.
func (r *Replayer) Replay(ctx context.Context, id, replayID string) (*Backfill, error) {
	found, err := r.db.GetReplay(ctx, id, replayID)
	if storage.IsNotFound(err) {
		return nil, fmt.Errorf("backfill %s: %w", replayID, ErrNoReplay)
	}
	if err != nil {
		return nil, err
	}
	return backfillOf(found), nil
}

// SetReplay pauses, resumes or cancels a backfill; ErrReplayState when it has ended.
func (r *Replayer) SetReplay(ctx context.Context, id, replayID string, status storage.ReplayStatus) (*Backfill, error) {
	var changed bool
	err := r.db.InRetriedTx(ctx, func(tx *storage.Tx) (err error) {
		changed, err = tx.SetReplayStatus(ctx, id, replayID, status)
		return err
	})
	if err != nil {
		return nil, err
	}
	found, err := r.Replay(ctx, id, replayID)
	if err == nil && !changed {
		err = fmt.Errorf("%w: it is %s", ErrReplayState, found.Status)
	}
	return found, err
}
