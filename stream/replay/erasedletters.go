package replay

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// ErrLetterErased: the dead letter is about somebody who was erased.
var ErrLetterErased = errors.New("the person that this dead letter is about was erased")

// who a dead letter is about: contacts by id, or a sender's names for somebody, which
// count as they were when the record was appended.
type who struct {
	contacts    []string
	identifiers []schemas.Identifier
	at          time.Time
}

// about says who a letter is about, as far as its key and its value tell.
func about(l *Letter, codec LetterCodec) who {
	w := who{at: stream.HeaderTime([]byte(l.RecordHeaders[stream.HeaderFirstAppended]))}
	if w.at.IsZero() {
		w.at = l.AppendedAt
	}
	w.addKey(string(l.RecordKey))
	switch schemas.Topic(l.SourceTopic) {
	case schemas.TopicIngest:
		if in, err := codec.DecodeInput(l.RecordValue); err == nil {
			w.addInput(in)
		}
	case schemas.TopicResolved:
		if r, err := codec.DecodeResolved(l.RecordValue); err == nil {
			w.contacts = append(w.contacts, r.ContactID)
			if r.Input != nil {
				w.addInput(r.Input)
			}
		}
	}
	return w
}

func (w *who) addKey(key string) {
	kind, name, named := strings.Cut(key, ":")
	switch {
	case !named:
		w.contacts = append(w.contacts, key)
	case kind == "c":
		w.contacts = append(w.contacts, name)
	case kind == "u":
		w.add(schemas.KindExternal, &name)
	case kind == "e":
		w.add(schemas.KindEmail, &name)
	case kind == "a":
		w.add(schemas.KindAnonymous, &name)
	}
}

func (w *who) addInput(in *schemas.Input) {
	if in.ContactID != nil {
		w.contacts = append(w.contacts, *in.ContactID)
	}
	w.add(schemas.KindExternal, in.UserID)
	w.add(schemas.KindEmail, in.Email)
	w.add(schemas.KindAnonymous, in.AnonymousID)
}

// add adds a name as identity compares it.
func (w *who) add(kind string, name *string) {
	if name == nil {
		return
	}
	value := strings.TrimSpace(*name)
	if kind == schemas.KindEmail {
		value = strings.ToLower(value)
	}
	if value != "" {
		w.identifiers = append(w.identifiers, schemas.Identifier{Kind: kind, Value: value})
	}
}

// markErased notes which letters are about people who were erased, with two statements
// for all of them.
func (d *DeadLetters) markErased(ctx context.Context, letters []*Letter) error {
	all := make([]who, len(letters))
	var contacts []string
	var identifiers []schemas.Identifier
	since := time.Now()
	for i, l := range letters {
		all[i] = about(l, d.codec)
		contacts = append(contacts, all[i].contacts...)
		identifiers = append(identifiers, all[i].identifiers...)
		if all[i].at.Before(since) {
			since = all[i].at
		}
	}
	erased, err := d.db.Erased(ctx, contacts...)
	if err != nil {
		return err
	}
	names := map[schemas.Identifier]storage.Place{}
	if len(identifiers) > 0 {
		if names, err = d.db.ErasedIdentifiers(ctx, identifiers, since); err != nil {
			return err
		}
	}
	for i, l := range letters {
		l.erased = all[i].among(erased, names)
		if l.erased && l.RecordType != schemas.FactContactDeleted {
			l.Status = storage.LetterErased
		}
	}
	return nil
}

func (w *who) among(contacts map[string]bool, names map[schemas.Identifier]storage.Place) bool {
	for _, id := range w.contacts {
		if contacts[id] {
			return true
		}
	}
	for _, id := range w.identifiers {
		if place, erased := names[id]; erased && !place.AppendTime.Before(w.at) {
			return true
		}
	}
	return false
}

// shown is a letter as operators see it: of one about somebody who was erased, where it
// stands and why it was given up in a word, and nothing of what it was about.
func (l *Letter) shown() *Letter {
	if !l.erased {
		return l
	}
	hidden, letter := *l, *l.DeadLetter
	letter.Error = "the person was erased: what the record held is not shown"
	letter.RecordValue, letter.RecordHeaders, letter.ResponseBody = nil, nil, nil
	if strings.Contains(string(letter.RecordKey), ":") { // a sender's name for somebody
		letter.RecordKey = nil
	}
	hidden.DeadLetter = &letter
	return &hidden
}
