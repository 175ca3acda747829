package console_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/replay"
)

// positions is a Rewinds that remembers what it was asked.
type positions struct {
	asked   []replay.RewindRequest
	skipped int
	refuse  error
}

func (p *positions) Rewind(_ context.Context, _ string, req replay.RewindRequest) (*replay.Rewound, error) {
	if p.refuse != nil {
		return nil, p.refuse
	}
	p.asked = append(p.asked, req)
	return &replay.Rewound{Preview: replay.Preview{Records: 12, Exact: true}, Applied: !req.DryRun}, nil
}

func (p *positions) Skip(_ context.Context, _ string, req replay.SkipRequest) (*replay.Rewound, error) {
	if !req.SkipUndelivered && !req.DryRun {
		return nil, &replay.UndeliveredError{Records: 7, Exact: true, To: "latest"}
	}
	if !req.DryRun {
		p.skipped++
	}
	return &replay.Rewound{Undelivered: 7, UndeliveredExact: true, Applied: !req.DryRun}, nil
}

func TestADestinationIsPausedResumedSkippedAndRewoundAndEachLeavesAnAuditRow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	at := "/webhooks/" + id

	out := s.request(http.MethodPost, at+"/pause", `{"reason":"maintenance"}`, http.StatusOK)
	require.Equal(t, "paused", out["state"])
	require.Equal(t, "maintenance", out["stateReason"])
	out = s.request(http.MethodPost, at+"/resume", "", http.StatusOK)
	require.Equal(t, "active", out["state"])
	require.Zero(t, s.positions.skipped)
	for path, body := range map[string]string{"/resume": `{"skipToNow":true}`, "/skip": ""} {
		out = s.request(http.MethodPost, at+path, body, http.StatusConflict)
		require.Equal(t, "7 records before latest are not delivered yet, and would not be sent", out["error"])
		require.Contains(t, out["fix"], "skipUndelivered")
	}
	out = s.request(http.MethodPost, at+"/skip", `{"dryRun":true}`, http.StatusOK)
	require.EqualValues(t, 7, out["undelivered"])
	require.Zero(t, s.positions.skipped)
	s.request(http.MethodPost, at+"/resume", `{"skipToNow":true,"skipUndelivered":true}`, http.StatusOK)
	require.Equal(t, 1, s.positions.skipped)
	s.request(http.MethodPost, at+"/skip", `{"skipUndelivered":true}`, http.StatusOK)
	require.Equal(t, 2, s.positions.skipped)

	out = s.request(http.MethodPost, at+"/rewind", `{"to":"start","dryRun":true}`, http.StatusOK)
	require.EqualValues(t, 12, out["records"])
	require.Equal(t, false, out["applied"])
	out = s.request(http.MethodPost, at+"/rewind", `{"to":"17","topic":"lifecycle","partition":3}`, http.StatusOK)
	require.Equal(t, true, out["applied"])
	require.EqualValues(t, 3, *s.positions.asked[1].Partition)
	s.request(http.MethodPost, at+"/rewind", `{}`, http.StatusBadRequest)
	s.positions.refuse = &replay.Error{Field: "to", Message: "write start"}
	s.request(http.MethodPost, at+"/rewind", `{"to":"x"}`, http.StatusBadRequest)
	s.positions.refuse = replay.ErrNoDestination
	require.Equal(t, "Webhook endpoint not found", s.request(http.MethodPost, at+"/rewind", `{"to":"x"}`, http.StatusNotFound)["error"])
	s.request(http.MethodPost, "/webhooks/"+uuid.NewString()+"/pause", "", http.StatusNotFound)

	log := s.request(http.MethodGet, "/audit-logs?resourceId="+id, "", http.StatusOK)
	require.EqualValues(t, 5, log["total"], "a dry run changes nothing and leaves none")
}

// backfills is a Replays with one backfill.
type backfills struct {
	asked  replay.BackfillRequest
	status storage.ReplayStatus
	id     string
}

func (b *backfills) Backfill(_ context.Context, _ string, req replay.BackfillRequest) (*replay.Backfilled, error) {
	b.asked = req
	out := &replay.Backfilled{Preview: replay.Preview{Records: 7, Exact: true}}
	if !req.DryRun {
		b.id, b.status = uuid.NewString(), storage.ReplayRunning
		out.Replay, _ = b.Replay(context.Background(), "", b.id)
	}
	return out, nil
}

func (b *backfills) Replays(context.Context, string, int) ([]*replay.Backfill, error) {
	return []*replay.Backfill{{ID: b.id, Status: string(b.status)}}, nil
}

func (b *backfills) Replay(_ context.Context, _, id string) (*replay.Backfill, error) {
	if id != b.id {
		return nil, replay.ErrNoReplay
	}
	return &replay.Backfill{ID: id, Status: string(b.status)}, nil
}

func (b *backfills) SetReplay(ctx context.Context, dest, id string, status storage.ReplayStatus) (*replay.Backfill, error) {
	if b.status == storage.ReplayCancelled {
		return nil, replay.ErrReplayState
	}
	b.status = status
	return b.Replay(ctx, dest, id)
}

func TestABackfillIsPreviewedBegunPausedAndCancelledOverTheAPI(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	at := "/webhooks/" + uuid.NewString() + "/replays"
	out := s.request(http.MethodPost, at, `{"types":["contact.created"],"dryRun":true}`, http.StatusOK)
	require.EqualValues(t, 7, out["preview"].(map[string]any)["records"])
	require.Nil(t, out["replay"])
	require.Equal(t, []string{"contact.created"}, s.backfills.asked.Types)
	out = s.request(http.MethodPost, at, `{"from":"2026-01-01T00:00:00Z","keys":["c"],"rate":50}`, http.StatusCreated)
	id := out["replay"].(map[string]any)["id"].(string)
	require.InDelta(t, 50, s.backfills.asked.Rate, 0)
	require.Len(t, s.request(http.MethodGet, at, "", http.StatusOK)["replays"], 1)
	require.Equal(t, "running", s.request(http.MethodGet, at+"/"+id, "", http.StatusOK)["status"])
	require.Equal(t, "paused", s.request(http.MethodPost, at+"/"+id+"/pause", "", http.StatusOK)["status"])
	require.Equal(t, "running", s.request(http.MethodPost, at+"/"+id+"/resume", "", http.StatusOK)["status"])
	require.Equal(t, "cancelled", s.request(http.MethodPost, at+"/"+id+"/cancel", "", http.StatusOK)["status"])
	s.request(http.MethodPost, at+"/"+id+"/resume", "", http.StatusConflict)
	s.request(http.MethodGet, at+"/nonsense", "", http.StatusNotFound)
	s.request(http.MethodPost, at, `{"rate":-1}`, http.StatusBadRequest)
}
