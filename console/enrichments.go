package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/web"
)

type enrichmentJSON struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Enabled     bool   `json:"enabled"`
	Destination string `json:"destination"`
	Trouble     string `json:"trouble,omitempty" doc:"Why the destination cannot be asked."`
	Revision    int64  `json:"revision" doc:"The version of the definitions at which it last changed."`
}

type (
	enrichmentPage struct {
		Enrichments []enrichmentJSON `json:"enrichments"`
	}
	enrichmentDetail struct {
		enrichmentJSON
		Definition any `json:"definition" doc:"In its one form."`
	}
	enrichmentResponse struct {
		Enrichment enrichmentDetail `json:"enrichment"`
	}
	contactEnrichments struct {
		ContactID   string               `json:"contactId"`
		Enrichments []explain.Enrichment `json:"enrichments" doc:"Those that were asked about the contact, or looked at it."`
	}
)

// enrichmentRoutes are those of enrichments.
func (c *console) enrichmentRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/enrichments", Scopes: reading, Tag: "Enrichments", Summary: "List enrichments, and whether their destinations can be asked",
			Example: `/v1/admin/enrichments`, Handle: web.Path(c.listEnrichments),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/enrichments/{id}", Scopes: reading, Tag: "Enrichments", Summary: "Show an enrichment",
			Params: []web.Param{{Name: "id", Text: "id of the enrichment, as its definition has it"}}, Example: `/v1/admin/enrichments/company`, Handle: web.Path(c.getEnrichment), NotFound: "Enrichment not found",
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/contacts/{id}/enrichments", Scopes: reading, Tag: "Enrichments", Summary: "Show what was asked about a contact, and what came of it",
			Params: []web.Param{{Name: "id", Text: "a userId, an anonymousId or a contact id"}}, Example: `/v1/admin/contacts/u-1/enrichments`, Handle: web.Path(c.contactEnrichments), NotFound: noContact,
		},
	}
}

// enrichments are those in use, each with what is wrong with its destination.
func (c *console) enrichments(ctx context.Context) (*definition.Set, []enrichmentJSON, error) {
	set, err := definition.Current(ctx, c.DB)
	if err != nil {
		return nil, nil, err
	}
	unasked, err := set.Unasked(ctx, c.DB)
	if err != nil {
		return nil, nil, err
	}
	trouble := map[definition.Ref]string{}
	for _, u := range unasked {
		trouble[u.Ref] = u.Why
	}
	out := make([]enrichmentJSON, 0, len(set.Enrichments))
	for i := range set.Enrichments {
		e := &set.Enrichments[i]
		out = append(out, enrichmentJSON{e.ID, e.Name, e.Enabled, e.Destination, trouble[e.Ref()], e.Revision})
	}
	return set, out, nil
}

// listEnrichments is GET /enrichments.
func (c *console) listEnrichments(r *web.Request) (out enrichmentPage, err error) {
	_, out.Enrichments, err = c.enrichments(r.Context())
	return out, err
}

// getEnrichment is GET /enrichments/{id}.
func (c *console) getEnrichment(r *web.Request) (out enrichmentResponse, err error) {
	set, all, err := c.enrichments(r.Context())
	if err != nil {
		return out, err
	}
	for i := range all {
		if all[i].ID == r.TextParam("id") {
			return enrichmentResponse{enrichmentDetail{all[i], json.RawMessage(set.Enrichments[i].Canonical())}}, nil
		}
	}
	return out, web.ErrNotFound
}

// contactEnrichments is GET /contacts/{id}/enrichments.
func (c *console) contactEnrichments(r *web.Request) (out contactEnrichments, err error) {
	out.ContactID, out.Enrichments, err = c.Explain.Enrichments(r.Context(), r.TextParam("id"))
	if errors.Is(err, explain.ErrNoContact) {
		return out, web.ErrNotFound
	}
	return out, err
}
