package predicate

import "math"

// Amounts are added up in millionths, so that 0.1 + 0.2 is 0.3 and the order of events
// and merges makes no difference. What is finer is rounded.
const amountUnit = 1_000_000

// maxAmountText is how the bound of an amount is said.
const maxAmountText = "9,000,000,000,000"

const maxAmount = 9_000_000_000_000

// amountOf is a number in millionths; false when it is beyond what is kept.
func amountOf(n float64) (int64, bool) {
	if !(math.Abs(n) <= maxAmount) {
		return 0, false
	}
	return int64(math.Round(n * amountUnit)), true
}

// addAmounts stays at the end of the range instead of going round.
func addAmounts(a, b int64) int64 {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

// compareAmounts is how a total stands to a threshold.
func compareAmounts(operator string, total, with int64) bool {
	switch operator {
	case "gt":
		return total > with
	case "gte":
		return total >= with
	case "lt":
		return total < with
	case "lte":
		return total <= with
	}
	return total == with
}
