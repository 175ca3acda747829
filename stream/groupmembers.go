package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// GroupMember is a member of a consumer group, as the group's coordinator knows it.
// It stays one while it sends heartbeats, and a static member also for the rest of its
// session after it was stopped or killed.
type GroupMember struct {
	Group    string // without prefix
	Instance string // of static membership; "" for a dynamic member
	ID       string
	ClientID string
	Host     string
}

// String names the member as an operator looks for it.
func (m GroupMember) String() string {
	return fmt.Sprintf("%s (client %s on %s, group %s)", cmp.Or(m.Instance, m.ID), m.ClientID, m.Host, m.Group)
}

// Members returns the members of groups, by group and instance. A group that does not
// exist has none.
func (a *Admin) Members(ctx context.Context, groups ...string) ([]GroupMember, error) {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = a.Config.Group(g)
	}
	described, err := a.Kadm.DescribeGroups(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe groups %v: %w", names, err)
	}
	var members []GroupMember
	for i, name := range names {
		g, ok := described[name]
		if !ok {
			return nil, fmt.Errorf("describe group %s: no answer for it", name)
		}
		if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("describe group %s: %w", name, g.Err)
		}
		for _, m := range g.Members {
			member := GroupMember{Group: groups[i], ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost}
			if m.InstanceID != nil {
				member.Instance = *m.InstanceID
			}
			members = append(members, member)
		}
	}
	slices.SortFunc(members, func(a, b GroupMember) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
	return members, nil
}
