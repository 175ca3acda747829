package schedule_test

import (
	"fmt"
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

// Four hours from now, but nobody gets mail at night or on a Sunday.
func ExampleUntil_Resolve() {
	wait := schedule.Until{
		After: 4 * time.Hour,
		Window: schedule.Window{
			From: schedule.Clock(9, 0), To: schedule.Clock(20, 0),
			Days: schedule.On(time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday),
		},
	}
	berlin, err := predicate.LoadZone("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	saturday := time.Date(2026, 3, 28, 18, 30, 0, 0, berlin)
	fmt.Println(wait.Resolve(saturday, berlin))
	// Output: 2026-03-30 09:00:00 +0200 CEST
}

// On the last of each month, were it shorter than 31 days.
func ExampleRepeat_Next() {
	monthly := schedule.Repeat{At: schedule.Clock(8, 0), MonthDays: schedule.OnDays(31)}
	at := time.Date(2028, 1, 31, 8, 0, 0, 0, time.UTC)
	for range 3 {
		at = monthly.Next(at, time.UTC)
		fmt.Println(at.Format(time.DateTime))
	}
	// Output:
	// 2028-02-29 08:00:00
	// 2028-03-31 08:00:00
	// 2028-04-30 08:00:00
}

func ExampleZoneOf() {
	properties := map[string]string{"$timezone": "Mars/Base", "timezone": "America/Lima"}
	zone := schedule.ZoneOf(func(property string) string { return properties[property] }, time.UTC)
	fmt.Println(zone.Zone, "by", zone.Source)
	fmt.Println(zone.Wrong[0])
	// Output:
	// America/Lima by timezone
	// $timezone: "Mars/Base" is no time zone: write an IANA name such as Europe/Berlin
}

func ExampleUntilFromNode() {
	documents, err := predicate.Documents("cart.yaml", []byte("day: mondey\nat: 09:00"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = schedule.UntilFromNode("cart.yaml", "until", documents[0])
	fmt.Println(err)
	// Output: cart.yaml:1:6: until.day: "mondey" is not known: did you mean "monday"?
}
