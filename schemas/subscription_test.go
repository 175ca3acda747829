package schemas

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubscriptionWantsWhatItNames(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []string
		yes, no []string
		topics  []Topic
	}{
		{"one catalog name", []string{"contact.created"},
			[]string{"contact.created"}, []string{"contact.updated", "event.tracked:contact.created"}, []Topic{TopicLifecycle}},
		{"a pattern", []string{"contact.*"},
			[]string{"contact.created", "contact.unsubscribed", "contact.conflict"}, []string{"email.sent", "contact.unheard"}, []Topic{TopicLifecycle}},
		{"a star covers facts and no product events", []string{"*"},
			[]string{"contact.created", "bucket.left"}, []string{"event.tracked:x", "webhook.test"}, []Topic{TopicLifecycle}},
		{"all product events", []string{"event.tracked"},
			[]string{"event.tracked:order.completed", "event.tracked:a:b"}, []string{"contact.created"}, []Topic{TopicEvents}},
		{"product events of one name", []string{"event.tracked:order.completed"},
			[]string{"event.tracked:order.completed"}, []string{"event.tracked:order", "event.tracked:order.completed2"}, []Topic{TopicEvents}},
		{"product events with a prefix beside a fact", []string{"event.tracked:order.*", "email.sent"},
			[]string{"event.tracked:order.x", "email.sent"}, []string{"event.tracked:orders"}, []Topic{TopicLifecycle, TopicEvents}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSubscription(c.entries)
			require.NoError(t, err)
			for _, typ := range c.yes {
				require.True(t, s.Matches(typ), typ)
			}
			for _, typ := range c.no {
				require.False(t, s.Matches(typ), typ)
			}
			require.Equal(t, c.topics, s.Topics())
		})
	}
}

func TestSubscriptionErrorNamesTheEntryAndTheFix(t *testing.T) {
	for entry, want := range map[string]string{
		"order.completed": `write|event.tracked:order.completed`,
		"event.*":         `event.tracked`,
		"webhook.test":    `cannot be subscribed`,
		"con*":            `not in the catalog`,
		"event.tracked:":  `names no event`,
		"":                `not in the catalog`,
	} {
		_, err := ParseSubscription([]string{"contact.created", entry})
		require.Error(t, err, entry)
		require.Contains(t, err.Error(), "eventTypes[1]")
		require.Regexp(t, want, err.Error())
	}
	_, err := ParseSubscription(nil)
	require.ErrorContains(t, err, "at least one")
}

func TestTheCatalogBeginsWithTheThirteenNamesThatClientsKnow(t *testing.T) {
	require.Equal(t, []string{
		"contact.created", "contact.updated", "contact.deleted", "contact.unsubscribed",
		"email.sent", "email.delivered", "email.opened", "email.clicked", "email.bounced", "email.complained",
		"journey.completed", "bucket.entered", "bucket.left",
	}, Catalog()[:13])
	require.NotContains(t, Catalog(), TypeWebhookTest)
	_, err := ParseSubscription([]string{TypeWebhookTest})
	require.ErrorContains(t, err, "webhook.test", "only a test makes one")
}

// There is one for each step of each run: nobody gets them who asked for "everything".
func TestStepsOfJourneysGoToWhoeverNamesThemAlone(t *testing.T) {
	for _, typ := range []string{FactJourneyStep, FactJourneySkipped} {
		all, err := ParseSubscription([]string{"*", "journey.*"})
		require.NoError(t, err)
		require.False(t, all.Matches(typ))
		require.True(t, all.Matches(FactJourneyStarted))
		named, err := ParseSubscription([]string{typ})
		require.NoError(t, err)
		require.True(t, named.Matches(typ))
		require.False(t, named.Matches(FactJourneyStarted))
	}
}

func TestADestinationTakesTheOutboxRecordsThatAreAddressedToIt(t *testing.T) {
	o := &Outbox{ID: idA, ContactID: idB, Kind: OutboxCall, Destination: idB}
	typ := o.Meta().Type
	to, addressed := AddressOf(typ)
	require.True(t, addressed)
	require.Equal(t, idB, to)

	s, err := ParseSubscription([]string{SubscribeOutbox})
	require.NoError(t, err)
	require.Equal(t, []Topic{TopicOutbox}, s.Topics())
	require.False(t, s.Matches(typ), "it is nobody's yet")
	require.True(t, s.For(idB).Matches(typ))
	require.False(t, s.For(idA).Matches(typ))

	all, err := ParseSubscription([]string{"*", TypeEventTracked})
	require.NoError(t, err)
	require.False(t, all.For(idB).Matches(typ), "no pattern covers it")
	require.Equal(t, []Topic{TopicLifecycle, TopicEvents}, all.Topics())

	for _, other := range []string{"call", "call:x", ":" + idB, TypeEventTracked + ":" + idB, ""} {
		_, addressed := AddressOf(other)
		require.False(t, addressed, other)
	}
}

func TestWhatAnswersCannotBeReplayed(t *testing.T) {
	require.Equal(t, []Topic{TopicOutbox}, Answering(FedTopics()))
	require.Equal(t, []Topic{TopicLifecycle, TopicEvents}, Replayable(FedTopics()))
}
