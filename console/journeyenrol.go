package console

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/web"
)

// What requests hold, and the answers.
type (
	enrolment struct {
		UserID     string     `json:"userId" required:"true" minLength:"1" maxLength:"512" doc:"A user id, an anonymous id or a contact id."`
		UserEmail  string     `json:"userEmail,omitempty" maxLength:"320" doc:"Is not looked at: mails go to the contact's own address."`
		Properties web.Object `json:"properties,omitempty" doc:"As those of a trigger."`
	}
	enrolledOne struct {
		Enrolled  bool   `json:"enrolled" doc:"The processor was told; its guards hold, and the fact journey.started or journey.skipped says what came of it."`
		Event     string `json:"event" doc:"The first event that the journey begins with by itself; empty of one that a schedule begins."`
		UserID    string `json:"userId"`
		JourneyID string `json:"journeyId"`
		ContactID string `json:"contactId"`
		CommandID string `json:"commandId"`
	}
	enrolments struct {
		Users  []enrolment `json:"users" minItems:"1" maxItems:"500"`
		Batch  string      `json:"batch,omitempty" maxLength:"200" doc:"A name of yours. Whom a batch has enrolled it does not enrol once more with the same properties, so one that was interrupted is sent again."`
		DryRun bool        `json:"dryRun,omitempty" doc:"Say who is known, and tell nobody anything."`
	}
	enrolledMany struct {
		Enrolled int            `json:"enrolled" doc:"Of how many the processor was told; its guards hold."`
		Skipped  int            `json:"skipped"`
		Results  []enrolledUser `json:"results"`
	}
	enrolledUser struct {
		UserID   string `json:"userId"`
		Enrolled bool   `json:"enrolled"`
		Reason   string `json:"reason,omitempty" enum:"contact_not_found,contact_not_seen_yet,already_enrolled" doc:"Why not. not_seen_yet: the processor will have seen the contact in a moment; already_enrolled: by this batch."`
	}
)

// Reasons for which the processor is not told to enrol a contact.
const (
	nobody         = "contact_not_found"
	unseen         = "contact_not_seen_yet" // a command would be about nobody
	enrolledBefore = "already_enrolled"
)

// journeyEnrolRoutes are those that enrol by hand.
func (c *console) journeyEnrolRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/enroll", Scopes: switching, Tag: "Journeys", Summary: "Enrol a contact by hand", Status: http.StatusAccepted,
			Text:   "The guards hold, but for the conditions of the trigger.",
			Params: journeyParams, Example: `/v1/admin/journeys/cart/enroll {"userId":"u1","properties":{"cartId":"a"}}`, Handle: web.Body(c.enroll), NotFound: noJourney,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/enroll/batch", Scopes: switching, Tag: "Journeys", Summary: "Enrol many contacts by hand",
			Text:   "The guards hold, but for the conditions of the trigger.",
			Params: journeyParams, Example: `/v1/admin/journeys/cart/enroll/batch {"users":[{"userId":"u1"}],"batch":"spring"}`, Handle: web.Body(c.enrollMany), NotFound: noJourney,
		},
	}
}

// enroll is POST /journeys/{id}/enroll.
func (c *console) enroll(r *web.Request, req *enrolment) (out enrolledOne, err error) {
	j, err := c.journey(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	commands, results, err := c.enrolments(r.Context(), j.ID, []enrolment{*req}, "")
	switch {
	case err != nil:
		return out, err
	case results[0].Reason == nobody:
		return out, refuse(http.StatusNotFound, "Contact not found", "create the contact first, with PUT /v1/contacts, or name another")
	case results[0].Reason == unseen:
		return out, refuse(http.StatusServiceUnavailable, "Processor journeys has not seen the contact yet", "send the request again in a moment")
	}
	if err := c.tellJourneys(r.Context(), commands); err != nil {
		return out, err
	}
	c.audit(r, "journeys", j.ID, map[string]any{"operation": journeys.CommandEnroll, "contactId": commands[0].contact})
	return enrolledOne{true, eventOf(j), req.UserID, j.ID, commands[0].contact, commands[0].id}, nil
}

// eventOf is the first event that begins a journey.
func eventOf(j *definition.JourneyInUse) string {
	if len(j.Trigger.Records) == 0 {
		return ""
	}
	return j.Trigger.Records[0].Event
}

// enrollMany is POST /journeys/{id}/enroll/batch.
func (c *console) enrollMany(r *web.Request, req *enrolments) (out enrolledMany, err error) {
	j, err := c.journey(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	var commands []journeyCommand
	commands, out.Results, err = c.enrolments(r.Context(), j.ID, req.Users, req.Batch)
	out.Enrolled, out.Skipped = len(commands), len(req.Users)-len(commands)
	if err != nil || req.DryRun || len(commands) == 0 {
		return out, err
	}
	if err := c.tellJourneys(r.Context(), commands); err != nil {
		return out, err
	}
	c.audit(r, "journeys", j.ID, map[string]any{"operation": journeys.CommandEnroll, "contacts": len(commands), "batch": req.Batch})
	return out, nil
}

// enrolments are the commands that enrol users, and what is to be said of each user.
func (c *console) enrolments(ctx context.Context, journey string, users []enrolment, batch string) ([]journeyCommand, []enrolledUser, error) {
	names := make([]string, len(users))
	for i := range users {
		names[i] = users[i].UserID
	}
	contacts, err := c.DB.ContactsNamed(ctx, names, schemas.KindExternal, schemas.KindAnonymous)
	if err != nil {
		return nil, nil, err
	}
	commands, results := make([]journeyCommand, 0, len(users)), make([]enrolledUser, len(users))
	for i := range users {
		results[i] = enrolledUser{UserID: users[i].UserID, Reason: nobody}
		if contact, known := contacts[users[i].UserID]; known {
			results[i].Reason = ""
			commands = append(commands, enrolmentOf(journey, contact, &users[i], batch, i))
		}
	}
	commands, err = c.withoutUnheard(ctx, commands, results, batch)
	for _, command := range commands {
		results[command.of].Enrolled = true
	}
	return commands, results, err
}

// enrolmentOf is the command that enrols a contact. In a batch its id follows from what it
// says, so that it is the same when the batch is sent again.
func enrolmentOf(journey, contact string, u *enrolment, batch string, of int) journeyCommand {
	command := journeyCommand{contact: contact, of: of, Command: journeys.Command{What: journeys.CommandEnroll, Journey: journey, Properties: string(u.Properties)}}
	if batch != "" {
		command.id = schemas.Derive(batch, "journey.enroll:"+journey+":"+contact+":"+command.Properties, 0)
	}
	return command
}

// withoutUnheard leaves out the commands that would be about nobody, and those of a batch
// that have begun a run already, and says so in the results.
func (c *console) withoutUnheard(ctx context.Context, commands []journeyCommand, results []enrolledUser, batch string) ([]journeyCommand, error) {
	contacts, ids := make([]string, len(commands)), make([]string, len(commands))
	for i := range commands {
		contacts[i], ids[i] = commands[i].contact, commands[i].id
	}
	seen, err := c.DB.DerivedAmong(ctx, journeys.Name, contacts)
	if err != nil {
		return nil, err
	}
	var begun map[string]bool
	if batch != "" {
		if begun, err = c.DB.JourneyTriggers(ctx, contacts, ids); err != nil {
			return nil, err
		}
	}
	kept := commands[:0]
	for _, command := range commands {
		switch {
		case !seen[command.contact]:
			results[command.of].Reason = unseen
		case begun[command.id]:
			results[command.of].Reason = enrolledBefore
		default:
			kept = append(kept, command)
		}
	}
	return kept, nil
}

// journeyCommand is what the processor of journeys is told of a contact.
type journeyCommand struct {
	journeys.Command
	contact string
	id      string // of the signal; made when it is told
	of      int    // the user of a request whom it is about
}

// tellJourneys appends commands, and notes the ids of those that have none.
func (c *console) tellJourneys(ctx context.Context, commands []journeyCommand) error {
	now, msgs := time.Now(), make([]schemas.Message, len(commands))
	for i := range commands {
		command := &commands[i]
		text, err := json.Marshal(command.Command)
		if err != nil {
			return err
		}
		if command.id == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			command.id = id.String()
		}
		state := string(text)
		msgs[i] = &schemas.Signal{
			ID: command.id, Type: schemas.SignalCommand, For: journeys.Name, ContactID: command.contact, OccurredAt: now, What: command.What, State: &state,
		}
	}
	return c.Log.Append(ctx, msgs...)
}
