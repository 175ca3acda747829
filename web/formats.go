package web

import "time"

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// IsAlphanumeric reports whether c is a letter or a digit of ASCII.
func IsAlphanumeric(c byte) bool { return isLetter(c) || isDigit(c) }

// ParseTime reads YYYY-MM-DDTHH:MM[:SS[.fraction]]Z of a day that exists.
// Digits beyond nanoseconds are dropped.
func ParseTime(s string) (time.Time, bool) {
	if len(s) < len("2006-01-02T15:04Z") || s[len(s)-1] != 'Z' ||
		s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' {
		return time.Time{}, false
	}
	year, ok1 := digits(s[0:4])
	month, ok2 := digits(s[5:7])
	day, ok3 := digits(s[8:10])
	hour, ok4 := digits(s[11:13])
	minute, ok5 := digits(s[14:16])
	second, nanos, ok6 := parseSeconds(s[16 : len(s)-1])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || hour > 23 || minute > 59 || second > 59 || month < 1 || month > 12 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return t, t.Day() == day && t.Month() == time.Month(month)
}

// parseSeconds reads nothing, :SS or :SS.fraction.
func parseSeconds(s string) (second, nanos int, ok bool) {
	if s == "" {
		return 0, 0, true
	}
	if len(s) < 3 || s[0] != ':' {
		return 0, 0, false
	}
	if second, ok = digits(s[1:3]); !ok || len(s) == 3 {
		return second, 0, ok
	}
	fraction := s[4:]
	if s[3] != '.' || fraction == "" {
		return 0, 0, false
	}
	scale := 100_000_000
	for i := 0; i < len(fraction); i++ {
		if !isDigit(fraction[i]) {
			return 0, 0, false
		}
		nanos += int(fraction[i]-'0') * scale
		scale /= 10
	}
	return second, nanos, true
}

func digits(s string) (int, bool) {
	n := 0
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}
