package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestAMailThatAJourneyAsksForIsShownInALine(t *testing.T) {
	m := &schemas.EmailRequest{ContactID: "c1", Template: "cart-1", To: new("ada@example.com"), Props: `{"cart":"a"}`, JourneyID: new("cart")}
	require.Equal(t, `mail cart-1 to ada@example.com (journey cart) {"cart":"a"}`, mailLine(m))
	m.To, m.JourneyID, m.Props = nil, nil, ""
	require.Equal(t, `mail cart-1 to contact c1, which has no address`, mailLine(m))
}
