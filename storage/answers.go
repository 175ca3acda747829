package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Answer is the outcome of an input whose sender waits, a JSON object.
type Answer struct {
	InputID string
	JSON    []byte
}

const (
	answersChannel = "answers"
	// notifyBytes bounds the ids named in one notification, which carries less
	// than 8000 bytes; beyond it, listeners look for whatever they wait for.
	notifyBytes = 7000
	// answersRetry is the pause after a failed look-up.
	answersRetry = 250 * time.Millisecond
)

// SaveAnswers stores answers and tells all waiting processes with one
// notification at commit. An answer given before stays as it was.
func (tx *Tx) SaveAnswers(ctx context.Context, answers []Answer, now time.Time) error {
	if len(answers) == 0 {
		return nil
	}
	const insert = `
INSERT INTO answers (input_id, answer, created_at)
SELECT n.input_id, n.answer, $3
FROM unnest($1::text[]::uuid[], $2::text[]::json[]) AS n (input_id, answer)
ON CONFLICT (input_id) DO NOTHING`
	ids, texts := make([]string, len(answers)), make([]string, len(answers))
	for i, a := range answers {
		ids[i], texts[i] = a.InputID, string(a.JSON)
	}
	if err := tx.write(ctx, fmt.Sprintf("save %d answers", len(answers)), insert, ids, texts, now); err != nil {
		return err
	}
	payload := strings.Join(ids, ",")
	if len(payload) > notifyBytes {
		payload = ""
	}
	return tx.write(ctx, "notify "+answersChannel, notifySQL, answersChannel, payload)
}

// PendingAnswer is what is left to do for an input until the contacts that merge
// because of it are folded in.
type PendingAnswer struct {
	InputID   string
	ContactID string // the survivor when the input was handled
	Answer    string // JSON, as it will be given; empty when nobody waits
	Removed   string // a patch of the properties that the input set to null; or empty
	Losers    []string
}

// LoadPendingAnswers returns the pending answers among the inputs, by input id.
func (tx *Tx) LoadPendingAnswers(ctx context.Context, inputs []string) (map[string]*PendingAnswer, error) {
	const load = `
SELECT input_id::text, contact_id::text, coalesce(answer::text, ''), coalesce(removed::text, ''), losers::text[]
FROM pending_answers
WHERE input_id = ANY ($1::text[]::uuid[])`
	pending := make(map[string]*PendingAnswer)
	if len(inputs) == 0 {
		return pending, nil
	}
	rows, err := tx.sql.Query(ctx, load, inputs)
	if err != nil {
		return nil, fmt.Errorf("load %d pending answers: %w", len(inputs), err)
	}
	defer rows.Close()
	for rows.Next() {
		var p PendingAnswer
		if err := rows.Scan(&p.InputID, &p.ContactID, &p.Answer, &p.Removed, &p.Losers); err != nil {
			return nil, fmt.Errorf("load pending answers: %w", err)
		}
		pending[p.InputID] = &p
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load pending answers: %w", err)
	}
	return pending, nil
}

// SavePendingAnswers writes pending answers as they are now; one without losers
// left is removed.
func (tx *Tx) SavePendingAnswers(ctx context.Context, pending []*PendingAnswer, now time.Time) error {
	const (
		remove = `DELETE FROM pending_answers WHERE input_id = ANY ($1::text[]::uuid[])`
		upsert = `
INSERT INTO pending_answers (input_id, contact_id, answer, removed, losers, created_at)
SELECT n.input_id, n.contact_id, nullif(n.answer, '')::json, nullif(n.removed, '')::json, n.losers::uuid[], $6
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::text[], $4::text[], $5::text[])
     AS n (input_id, contact_id, answer, removed, losers)
ON CONFLICT (input_id) DO UPDATE
SET contact_id = excluded.contact_id, answer = excluded.answer, removed = excluded.removed, losers = excluded.losers`
	)
	var done, ids, contacts, answers, removed, losers []string
	for _, p := range pending {
		if len(p.Losers) == 0 {
			done = append(done, p.InputID)
			continue
		}
		ids, contacts = append(ids, p.InputID), append(contacts, p.ContactID)
		answers, removed, losers = append(answers, p.Answer), append(removed, p.Removed), append(losers, uuidArray(p.Losers))
	}
	if len(done) > 0 {
		if _, err := tx.sql.Exec(ctx, remove, done); err != nil {
			return fmt.Errorf("remove %d pending answers: %w", len(done), err)
		}
	}
	if len(ids) > 0 {
		if _, err := tx.sql.Exec(ctx, upsert, ids, contacts, answers, removed, losers, now); err != nil {
			return fmt.Errorf("save %d pending answers: %w", len(ids), err)
		}
	}
	return nil
}

// uuidArray is the literal of a uuid[]: one text a row, as arrays of different
// lengths cannot be unnested together.
func uuidArray(ids []string) string { return "{" + strings.Join(ids, ",") + "}" }

// CleanAnswers forgets at most limit answers given, and at most limit pending
// ones begun, before a time, and says how many it took. Pending ones that bear
// properties to be removed stay: those count however late the loser comes.
func (db *DB) CleanAnswers(ctx context.Context, before time.Time, limit int) (int64, error) {
	given, err := db.clean(ctx, "answers", `
DELETE FROM answers WHERE input_id IN
    (SELECT input_id FROM answers WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, before, limit)
	if err != nil {
		return 0, err
	}
	pending, err := db.clean(ctx, "pending answers", `
DELETE FROM pending_answers WHERE input_id IN
    (SELECT input_id FROM pending_answers WHERE created_at < $1 AND removed IS NULL ORDER BY created_at LIMIT $2)`, before, limit)
	return given + pending, err
}

// CleanPendingAnswers forgets at most limit pending answers of whatever kind begun
// before a time, which is longer ago than the losers' records are on the log.
func (db *DB) CleanPendingAnswers(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "pending answers", `
DELETE FROM pending_answers WHERE input_id IN
    (SELECT input_id FROM pending_answers WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, before, limit)
}

// Answers lets any number of requests of a process wait for their answers with
// one LISTEN and one set query a notification. Safe for concurrent use.
type Answers struct {
	db *DB

	mu      sync.Mutex
	waiting map[string][]*Waiter
	look    map[string]bool // ids that were announced
	lookAll bool            // an announcement may have been missed
	wake    chan struct{}
}

// NewAnswers returns Answers that works once Run runs.
func NewAnswers(db *DB) *Answers {
	return &Answers{
		db: db, waiting: make(map[string][]*Waiter),
		look: make(map[string]bool), wake: make(chan struct{}, 1),
	}
}

// Run listens and hands answers out until ctx ends, and returns nil then. An
// outage of the database delays answers and loses none.
func (a *Answers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.db.Listen(ctx, answersChannel, a.announced) })
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-a.wake:
			}
			if a.handOut(ctx) != nil {
				a.retry(ctx)
			}
		}
	})
	return group.Wait()
}

// retry waits and looks for everything: the failed look-up forgot its ids.
func (a *Answers) retry(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(answersRetry):
		a.announced("")
	}
}

// announced notes which answers are there; an empty payload may be any.
func (a *Answers) announced(payload string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if payload == "" {
		a.lookAll = true
	} else {
		for id := range strings.SplitSeq(payload, ",") {
			if a.waiting[id] != nil {
				a.look[id] = true
			}
		}
		if len(a.look) == 0 && !a.lookAll {
			return // for waiters of other processes
		}
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// wanted takes the ids to be looked up.
func (a *Answers) wanted() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]string, 0, len(a.look))
	if a.lookAll {
		for id := range a.waiting {
			ids = append(ids, id)
		}
	} else {
		for id := range a.look {
			ids = append(ids, id)
		}
	}
	clear(a.look)
	a.lookAll = false
	return ids
}

func (a *Answers) handOut(ctx context.Context) error {
	ids := a.wanted()
	if len(ids) == 0 {
		return nil
	}
	const load = `SELECT input_id::text, answer::text FROM answers WHERE input_id = ANY ($1::text[]::uuid[])`
	rows, err := a.db.sql.Query(ctx, load, ids)
	if err != nil {
		return fmt.Errorf("look up %d answers: %w", len(ids), err)
	}
	var id, answer string
	_, err = pgx.ForEachRow(rows, []any{&id, &answer}, func() error {
		a.give(id, json.RawMessage(answer))
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up %d answers: %w", len(ids), err)
	}
	return nil
}

func (a *Answers) give(id string, answer json.RawMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.waiting[id] {
		w.answer <- answer // has room for the only one
	}
	delete(a.waiting, id)
}

// Given says whether an input was answered, as far back as answers are kept.
func (a *Answers) Given(ctx context.Context, inputID string) (given bool, err error) {
	const look = `SELECT EXISTS (SELECT FROM answers WHERE input_id = $1::text::uuid)`
	if err := a.db.sql.QueryRow(ctx, look, inputID).Scan(&given); err != nil {
		return false, fmt.Errorf("look up the answer to input %s: %w", inputID, err)
	}
	return given, nil
}

// Waiter waits for the answer to one input.
type Waiter struct {
	answers *Answers
	id      string
	answer  chan json.RawMessage
}

// Register begins to wait for the answer to an input. Call it before the input
// is appended, so that no answer is missed, and Close the waiter in the end.
func (a *Answers) Register(inputID string) *Waiter {
	w := &Waiter{answers: a, id: inputID, answer: make(chan json.RawMessage, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[inputID] = append(a.waiting[inputID], w)
	return w
}

// RegisterLate is Register for an answer that may have been given already.
func (a *Answers) RegisterLate(inputID string) *Waiter {
	w := a.Register(inputID)
	a.announced(inputID)
	return w
}

// Wait returns the answer, or ctx's error when that ends first.
func (w *Waiter) Wait(ctx context.Context) (json.RawMessage, error) {
	select {
	case answer := <-w.answer:
		return answer, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the answer to input %s: %w", w.id, context.Cause(ctx))
	}
}

// Close ends the waiting. It may be called at any time, more than once.
func (w *Waiter) Close() {
	a := w.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	others := slices.DeleteFunc(a.waiting[w.id], func(o *Waiter) bool { return o == w })
	if len(others) == 0 {
		delete(a.waiting, w.id)
	} else {
		a.waiting[w.id] = others
	}
}
