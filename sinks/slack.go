package sinks

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// slackKind writes one message a record through an incoming webhook. Slack has
// no ids of messages: an attempt whose answer was lost gives a second message.
var slackKind = Kind{Name: "slack", SecretURL: true, Records: 1, Bytes: 8 << 20, DefaultRate: 1, Open: openSlack}

// Limits of Slack, in characters: of a section, and of the details below it.
const (
	slackSection = 3000
	slackDetails = 2500
)

// slackConfig is the config of kind slack.
type slackConfig struct {
	// URL of the incoming webhook; the destination's URL when empty.
	URL       string `json:"url"`
	Username  string `json:"username"`
	IconEmoji string `json:"iconEmoji"`
}

type slack struct {
	url *url.URL
	cfg slackConfig
}

func openSlack(dest *storage.Destination, guard *transport.Guard) (Sink, error) {
	s := &slack{}
	if err := ReadConfig(dest.Config, &s.cfg); err != nil {
		return nil, err
	}
	raw, field := s.cfg.URL, "config.url"
	if raw == "" {
		raw, field = dest.URL, "url"
	}
	if raw == "" {
		return nil, errors.New("url: is missing: write the address of the incoming webhook (https://hooks.slack.com/services/…)")
	}
	var err error
	s.url, err = guard.CheckURL(field, raw)
	return s, err
}

// Build implements [Sink].
func (s *slack) Build(a *Attempt) (*transport.Request, error) {
	p := a.Payloads[0]
	text := slackText(p)
	o := begin(make([]byte, 0, 1024))
	o.str("text", text)
	if s.cfg.Username != "" {
		o.str("username", s.cfg.Username)
	}
	if s.cfg.IconEmoji != "" {
		o.str("icon_emoji", s.cfg.IconEmoji)
	}
	o.key("blocks")
	o.b = append(o.b, '[')
	o.b = appendBlock(o.b, "section", text)
	if details := slackProperties(p); details != "" {
		o.b = append(o.b, ',')
		o.b = appendBlock(o.b, "section", details)
	}
	o.b = append(o.b, ',')
	o.b = appendContext(o.b, p)
	o.b = append(o.b, ']')
	return &transport.Request{URL: s.url, Header: http.Header{"Content-Type": {"application/json"}}, Body: o.end()}, nil
}

func appendBlock(b []byte, typ, markdown string) []byte {
	o := begin(b)
	o.str("type", typ)
	o.key("text")
	text := begin(o.b)
	text.str("type", "mrkdwn")
	text.str("text", truncate(markdown, slackSection))
	o.b = text.end()
	return o.end()
}

// appendContext is the small print: when, and which record.
func appendContext(b []byte, p *Payload) []byte {
	o := begin(b)
	o.str("type", "context")
	o.key("elements")
	o.b = append(o.b, '[')
	element := begin(o.b)
	element.str("type", "mrkdwn")
	text := p.OccurredAt.UTC().Format("2006-01-02 15:04:05 UTC") + " · " + p.MessageID()
	if p.Seq > 0 {
		text += " · no. " + strconv.FormatInt(p.Seq, 10) + " of the contact"
	}
	element.str("text", text)
	o.b = append(element.end(), ']')
	return o.end()
}

// slackText says what happened to whom: *email.clicked* for `ann@example.com`
// (template `welcome`).
func slackText(p *Payload) string {
	var t strings.Builder
	t.WriteString("*" + slackEscape(truncate(p.Name(), 200)) + "*")
	if who := slackWho(p); who != "" {
		t.WriteString(" for `" + slackCode(truncate(who, 200)) + "`")
	}
	if f := p.Fact; f != nil {
		switch {
		case f.EmailFact != nil && f.EmailFact.TemplateKey != nil:
			t.WriteString(" (template `" + slackCode(truncate(*f.EmailFact.TemplateKey, 200)) + "`)")
		case f.Bucket != nil:
			t.WriteString(" (bucket `" + slackCode(truncate(f.Bucket.BucketName, 200)) + "`)")
		case f.Journey != nil:
			t.WriteString(" (journey `" + slackCode(truncate(f.Journey.JourneyName, 200)) + "`)")
		case f.Contact != nil && len(f.Contact.Changed) > 0:
			t.WriteString(" (" + slackEscape(truncate(strings.Join(f.Contact.Changed, ", "), 500)) + ")")
		}
	}
	return t.String()
}

// slackWho is the address, else another name of the person.
func slackWho(p *Payload) string {
	if p.Fact != nil && p.Fact.EmailFact != nil && p.Fact.EmailFact.To != "" {
		return p.Fact.EmailFact.To
	}
	if p.Person.Email != nil && *p.Person.Email != "" {
		return *p.Person.Email
	}
	return p.Person.DistinctID()
}

// slackProperties shows what a product event carries.
func slackProperties(p *Payload) string {
	if p.Event == nil {
		return ""
	}
	properties := p.Properties()
	if strings.TrimSpace(properties[1:len(properties)-1]) == "" {
		return ""
	}
	// Cut before escaping: an entity must not be cut in two.
	return "```" + truncate(slackCode(truncate(properties, slackDetails/2)), slackDetails) + "```"
}

var (
	slackEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	slackCoder   = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "`", "'")
)

// slackEscape escapes the three characters that Slack interprets.
func slackEscape(s string) string { return slackEscaper.Replace(s) }

// slackCode is for text between backticks.
func slackCode(s string) string { return slackCoder.Replace(s) }

// slackGone are what Slack answers, beside 410, when the webhook will never work
// again: it was removed, its app or workspace was, or its URL is not right.
var slackGone = []string{"no_service", "no_service_id", "no_team", "team_disabled", "invalid_token", "channel_is_archived"}

// Judge implements [Sink]. Slack says in a word what is wrong.
func (s *slack) Judge(_ *Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	verdict := JudgeStatus(ans.Status)
	word := strings.TrimSpace(string(ans.Body))
	if verdict == delivery.Delivered || !slackWord.MatchString(word) {
		return verdict, ""
	}
	if verdict == delivery.Refuse && slices.Contains(slackGone, word) {
		verdict = delivery.Gone
	}
	return verdict, fmt.Sprintf("HTTP %d: %s", ans.Status, word)
}

var slackWord = regexp.MustCompile(`^[a-z][a-z_]{0,60}$`)
