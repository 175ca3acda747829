package definition_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// targets are destinations that there are.
type targets []storage.CallTarget

func (t targets) CallTargets(_ context.Context, names []string) (out []storage.CallTarget, err error) {
	for _, one := range t {
		if slices.Contains(names, one.Name) {
			out = append(out, one)
		}
	}
	return out, nil
}

// A journey that calls nobody fails with its first run: who puts it in use is told before.
func TestWhoAsksADestinationThatCannotBeAskedIsSaid(t *testing.T) {
	const asks = "enabled: true\ntrigger: {event: x}\nsteps: [{call: {destination: crm}}]\n"
	db := storagetest.New(t)
	out := apply(t, db, loadFS(t, map[string]string{
		"journeys/ask.yaml":  "id: ask\nname: Ask\n" + asks,
		"journeys/off.yaml":  "id: off\nname: Off\nenabled: false\ntrigger: {event: x}\nsteps: [{call: {destination: gone}}]\n",
		"journeys/byid.yaml": "id: byid\nname: By id\nenabled: true\ntrigger: {event: x}\nsteps: [{call: {destination: 0192f000-0000-7000-8000-0000000000ab}}]\n",
		"buckets/pros.yaml":  "id: pros\nname: Pros\nenabled: true\nkind: manual\non: [{enter: [{call: {destination: crm}}]}]\n",
	}))
	said := func(t *testing.T, from d.Targets) (lines []string) {
		unasked, err := out.Set.Unasked(t.Context(), from)
		require.NoError(t, err)
		for _, u := range unasked {
			lines = append(lines, u.String())
		}
		return lines
	}
	require.Equal(t, []string{
		"journey ask asks destination crm, which is not there: add it with outbox among its event types",
		"journey bucket-pros-on-enter asks destination crm, which is not there: add it with outbox among its event types",
	}, said(t, db))
	require.Equal(t, []string{
		"journey ask asks destination crm, which does not take outbox: name it in its event types",
		"journey bucket-pros-on-enter asks destination crm, which does not take outbox: name it in its event types",
	}, said(t, targets{{Name: "crm", EventTypes: []string{"*"}}}))
	require.Empty(t, said(t, targets{{Name: "crm", EventTypes: []string{"outbox"}}}))
}

func TestOfAFileWithFaultsNothingIsInUseUnlessItWasBefore(t *testing.T) {
	db := storagetest.New(t)
	out := apply(t, db, loadFS(t, map[string]string{"buckets/vip.yaml": vipFile, "journeys/cart.yaml": "id: cart\nname: Cart\nenabled: true\ntriger: {event: x}\n"}))
	require.Len(t, out.Set.Failing, 1)
	require.False(t, out.Set.Keeps(&out.Set.Failing[0]), "it never was in use")
	out = apply(t, db, loadFS(t, map[string]string{"buckets/vip.yaml": vipFile + "wrong: 1\n"}))
	require.Len(t, out.Set.Failing, 1)
	require.True(t, out.Set.Keeps(&out.Set.Failing[0]))
}
