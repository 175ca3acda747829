package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// shelf is a directory of definitions, and a database with some contacts.
type shelf struct {
	t        *testing.T
	dir, url string
	db       *storage.DB
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, dir: t.TempDir(), url: storagetest.URL(t)}
	var err error
	s.db, err = storage.Open(t.Context(), storage.Config{URL: s.url})
	require.NoError(t, err)
	t.Cleanup(s.db.Close)
	return s
}

const (
	annID = "00000000-0000-4000-8000-00000000000a"
	bobID = "00000000-0000-4000-8000-00000000000b"
)

// contacts stores ann, who is pro, and bob, who is not, each with an order.
func (s *shelf) contacts() *shelf {
	s.t.Helper()
	now := time.Now()
	contact := func(id, user, email, properties string) *storage.Contact {
		return &storage.Contact{
			ID: id, ExternalID: user, Email: email, Properties: properties, Seq: 2,
			FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now,
		}
	}
	event := func(contact string) storage.StoredEvent {
		return storage.StoredEvent{ID: contact, ContactID: contact, Name: "order", Properties: "{}", OccurredAt: now, ReceivedAt: now, Seq: 2}
	}
	require.NoError(s.t, s.db.InTx(s.t.Context(), func(tx *storage.Tx) error {
		return errors.Join(
			tx.SaveContacts(s.t.Context(), &storage.ContactChanges{Saved: []*storage.Contact{
				contact(annID, "ann", "ann@shop.test", `{"plan":"pro"}`), contact(bobID, "bob", "", `{"plan":"free"}`),
			}}, now),
			tx.StoreEvents(s.t.Context(), []storage.StoredEvent{event(annID), event(bobID)}),
		)
	}))
	return s
}

// file writes a definition; an empty text removes it.
func (s *shelf) file(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "buckets", name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	if text == "" {
		require.NoError(s.t, os.Remove(path))
		return
	}
	require.NoError(s.t, os.WriteFile(path, []byte(text), 0o600))
}

func (s *shelf) run(args ...string) (string, error) {
	s.t.Helper()
	return said(s.t, append(args, "--database-url", s.url)...)
}

func (s *shelf) plan(args ...string) (r definition.Report, err error) {
	s.t.Helper()
	text, err := s.run(append([]string{"plan", s.dir, "--json"}, args...)...)
	require.NoError(s.t, json.Unmarshal([]byte(text), &r), text)
	return r, err
}

const (
	pros   = "id: pros\nname: Pros\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n"
	buyers = "id: buyers\nname: Buyers\nenabled: true\ncriteria: {type: event, eventName: order, check: exists}\n"
	both   = "id: both\nname: Both\nenabled: true\ncriteria: {type: bucket, bucketId: pros}\n"
)

func TestAPlanSaysWhatChangesAndWhoWouldEnter(t *testing.T) {
	s := newShelf(t).contacts()
	s.file("pros.yaml", pros)
	s.file("buyers.yaml", buyers)
	text, err := s.run("plan", s.dir)
	require.ErrorIs(t, err, errChanges)
	for _, part := range []string{
		"Against version 0", "+ buyers: added", "+ pros: added", "Members, of 2 contacts", "BUCKET", "+2", "+1",
		"enters pros\n    " + annID + "  ann  ann@shop.test\n", "2 added, 0 changed, 0 removed", "apply " + s.dir + " --plan 0-",
	} {
		require.Contains(t, text, part)
	}
	r, err := s.plan("--sample", "1")
	require.ErrorIs(t, err, errChanges)
	require.True(t, r.Changed)
	require.Equal(t, []definition.Change{{Kind: "bucket", ID: "buyers", What: definition.Added}, {Kind: "bucket", ID: "pros", What: definition.Added}}, r.Changes)
	ann := definition.Move{Bucket: "buyers", Move: definition.Enters, ContactID: annID, UserID: "ann", Email: "ann@shop.test"}
	require.Equal(t, definition.Effect{Bucket: "buyers", Why: "added", Enter: 2, Entering: []definition.Move{ann}, Leaving: []definition.Move{}}, r.Members.Effects[0])
	require.Equal(t, int64(2), r.Members.Contacts)

	none, err := s.plan("--no-members")
	require.ErrorIs(t, err, errChanges)
	require.Nil(t, none.Members)
	require.Equal(t, r.Hash, none.Hash, "numbers are no part of what a plan stands on")
	set, err := definition.Current(t.Context(), s.db)
	require.NoError(t, err)
	require.Zero(t, set.Version, "a plan changes nothing")
}

func TestAPlanExportsEverybodyWhoMoves(t *testing.T) {
	s := newShelf(t).contacts()
	s.file("buyers.yaml", buyers)
	lines, table := filepath.Join(t.TempDir(), "moves.ndjson"), filepath.Join(t.TempDir(), "moves.csv")
	_, err := s.run("plan", s.dir, "--export", lines)
	require.ErrorIs(t, err, errChanges)
	_, err = s.run("plan", s.dir, "--export", table)
	require.ErrorIs(t, err, errChanges)
	text, err := os.ReadFile(lines)
	require.NoError(t, err)
	require.Contains(t, string(text), `{"bucket":"buyers","move":"enters","contactId":"`+annID+`","userId":"ann","email":"ann@shop.test"}`+"\n")
	require.Equal(t, 2, strings.Count(string(text), "\n"))
	file, err := os.Open(table)
	require.NoError(t, err)
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.Equal(t, []string{"bucket", "move", "contactId", "userId", "email"}, rows[0])
	require.ElementsMatch(t, [][]string{{"buyers", "enters", annID, "ann", "ann@shop.test"}, {"buyers", "enters", bobID, "bob", ""}}, rows[1:])
}

func TestThePlansExitCodeTellsChangesFromNoneAndFromFaults(t *testing.T) {
	s := newShelf(t)
	s.file("pros.yaml", pros)
	call := func(args ...string) int { return run(t.Context(), append(args, "--database-url", s.url)) }
	require.Equal(t, 2, call("plan", s.dir))
	require.Equal(t, 0, call("apply", s.dir, "--yes"))
	require.Equal(t, 0, call("plan", s.dir))
	s.file("bad.yaml", "id: bad\n")
	require.Equal(t, 1, call("plan", s.dir))
	require.Equal(t, 1, call("plan", s.dir, "--no-such-flag"), "2 says that there are changes")
	require.Equal(t, 2, call("apply", s.dir, "--no-such-flag"))
}

func TestApplyRefusesAPlanWhenTheWorldHasMovedAndNamesWhatHas(t *testing.T) {
	s := newShelf(t)
	s.file("pros.yaml", pros)
	kept := filepath.Join(t.TempDir(), "plan.json")
	_, err := s.plan("--out", kept)
	require.ErrorIs(t, err, errChanges)
	_, err = s.run("apply", s.dir)
	require.ErrorIs(t, err, errNobodyToAsk, "without a plan, and without --yes")

	s.file("buyers.yaml", buyers)
	_, err = s.run("apply", s.dir, "--plan", kept)
	require.ErrorContains(t, err, "the definitions are not those of the plan")
	require.ErrorContains(t, err, "what differs: buyers")
	s.file("buyers.yaml", "")
	text, err := s.run("apply", s.dir, "--plan", kept)
	require.NoError(t, err)
	require.Contains(t, text, "is in use as version 1\n  added    pros\n")
	_, err = s.run("apply", s.dir, "--plan", kept)
	require.ErrorContains(t, err, "version 1 is in use, and it was 0; hogstream apply by ")
	_, err = s.run("apply", s.dir, "--plan", filepath.Join(s.dir, "none.json"))
	require.ErrorContains(t, err, "--plan is no hash of a plan, and no file")

	s.file("buyers.yaml", buyers)
	r, err := s.plan()
	require.ErrorIs(t, err, errChanges)
	text, err = s.run("apply", s.dir, "--plan", r.Hash)
	require.NoError(t, err)
	require.Contains(t, text, "is in use as version 2")
	text, err = s.run("apply", s.dir)
	require.NoError(t, err, "where nothing changes nobody is asked")
	require.Contains(t, text, "nothing changed, version 2 is in use")
}

func TestHistoryDiffAndRollback(t *testing.T) {
	s := newShelf(t).contacts()
	s.file("pros.yaml", pros)
	s.file("buyers.yaml", buyers)
	_, err := s.run("apply", s.dir, "--yes")
	require.NoError(t, err)
	s.file("pros.yaml", strings.Replace(pros, "value: pro}", "value: free}", 1))
	s.file("buyers.yaml", "")
	_, err = s.run("apply", s.dir, "--yes")
	require.NoError(t, err)

	text, err := s.run("history")
	require.NoError(t, err)
	require.Regexp(t, `(?s)VERSION .*\n2 .* hogstream apply by \S+ +1 bucket +0 added, 1 changed, 1 removed +-buyers ~pros\n1 .* 2 added, 0 changed, 0 removed +\+buyers \+pros\n`, text)
	text, err = s.run("diff", "1")
	require.NoError(t, err)
	require.Contains(t, text, "pros: changed (criteria)\n--- version 1/pros\n+++ version 2/pros\n")
	require.Contains(t, text, "-  value: pro\n+  value: free\n")
	require.Contains(t, text, "From version 1 to 2: 2 definitions differ.\n")

	_, err = s.run("rollback", "1")
	require.ErrorIs(t, err, errNobodyToAsk)
	_, err = s.run("rollback", "7", "--yes")
	require.ErrorContains(t, err, "version 7: no such version of the definitions: `hogstream history` has those there are")
	text, err = s.run("plan", "--rollback", "1")
	require.ErrorIs(t, err, errChanges)
	require.Contains(t, text, "~ pros: changed (criteria)")
	require.Contains(t, text, "enters pros\n    "+annID)
	hash := text[strings.Index(text, "rollback 1 --plan ")+len("rollback 1 --plan "):]
	text, err = s.run("rollback", "1", "--plan", strings.TrimSpace(hash))
	require.NoError(t, err)
	require.Contains(t, text, "what version 1 was is in use as version 3\n  added    buyers\n  changed  pros (criteria)\n")
	_, err = s.run("rollback", "1", "--plan", strings.TrimSpace(hash))
	require.ErrorContains(t, err, "version 3 is in use, and it was 2; hogstream rollback 1 by ")
}
