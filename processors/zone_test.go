package processors_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
)

// Whose time zone nobody knows has the deployment's: here one in which it is another day now
// than in UTC.
func TestTodayIsThatOfTheDeploymentsZone(t *testing.T) {
	now := time.Now().UTC()
	name := "Pacific/Pago_Pago" // 11 hours behind
	if now.Hour() >= 11 {
		name = "Pacific/Kiritimati" // 14 hours ahead
	}
	zone, err := predicate.LoadZone(name)
	require.NoError(t, err)
	there := now.In(zone).Format(time.DateOnly)
	require.NotEqual(t, now.Format(time.DateOnly), there)
	l := newLive(t, definition.Bucket{ID: "today", Name: "Today", Enabled: true, Criteria: predicate.Prop("day").OnDate(predicate.Today(0))})
	l.zone = zone
	l.ready(100)
	l.run(identity.Name, 100)
	l.run(contacts.Name, 100)
	for user, day := range map[string]string{"there": there, "here": now.Format(time.DateOnly)} {
		in := active(user)
		in.ContactProperties = new(`{"day":"` + day + `"}`)
		l.receive(now, in)
	}
	l.drained()
	told := l.told()
	require.Len(t, told, 1)
	require.Equal(t, schemas.FactBucketEntered, told[0].Type)
	require.Equal(t, "there", *told[0].UserID)
}
