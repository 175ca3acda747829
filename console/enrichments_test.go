package console_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
)

func TestEnrichmentsAreListedWithWhetherTheyCanAsk(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	files, err := definition.Built([]definition.Enrichment{
		{ID: "company", Name: "Company", Enabled: true, When: predicate.Prop("domain").Exists(), Destination: "crm", Send: []string{"domain"}, Map: ".set"},
		{ID: "off", Name: "Off", When: predicate.Prop("domain").Exists(), Destination: "crm", Map: "."},
	}, definitionOptions)
	require.NoError(t, err)
	_, err = definition.Apply(t.Context(), s.db, files, definitionOptions, "test")
	require.NoError(t, err)
	ada := s.person("u-1", "", "")
	list := s.request(http.MethodGet, "/enrichments", "", http.StatusOK)
	require.Equal(t, []any{"company", "off"}, []any{at(t, list, "enrichments", 0, "id"), at(t, list, "enrichments", 1, "id")})
	require.NotEmpty(t, at(t, list, "enrichments", 0, "trouble"), "there is no such destination")
	shown := s.request(http.MethodGet, "/enrichments/company", "", http.StatusOK)
	require.Equal(t, "crm", at(t, shown, "enrichment", "definition", "destination"))
	require.Equal(t, "Enrichment not found", s.request(http.MethodGet, "/enrichments/none", "", http.StatusNotFound)["error"])
	require.Equal(t, map[string]any{"contactId": ada, "enrichments": []any{}}, s.request(http.MethodGet, "/contacts/u-1/enrichments", "", http.StatusOK))
	require.Equal(t, "Contact not found", s.request(http.MethodGet, "/contacts/nobody/enrichments", "", http.StatusNotFound)["error"])
}
