package hogstream_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A dot in the name of a group was taken for the name of a class.
func TestKafkaToolsAreToldTheBrokerWhateverTheirArgumentsAre(t *testing.T) {
	const standIns = `set -e
addresses() { echo b:9092; }
run_java() { shift 4; echo "$@"; }
eval "$(sed -n '/^tool_class() {/,/^}/p;/^tool() {/,/^}/p' compose/kafka/kafka.sh)"
tool `
	for call, want := range map[string]string{
		"kafka-consumer-groups --describe --group hogstream.contacts --members": "--bootstrap-server b:9092 --describe --group hogstream.contacts --members",
		"kafka-topics.sh --list":                     "--bootstrap-server b:9092 --list",
		"kafka-topics --bootstrap-server=x:1 --list": "--bootstrap-server=x:1 --list",
		"kafka-topics --bootstrap-server x:1 --list": "--bootstrap-server x:1 --list",
		"kafka-dump-log --files a.log":               "--files a.log",
		"org.apache.kafka.tools.TopicCommand --list": "--list",
	} {
		got, err := exec.CommandContext(t.Context(), "bash", "-c", standIns+call).CombinedOutput()
		require.NoError(t, err, "%s: %s", call, got)
		require.Equal(t, want, strings.TrimSpace(string(got)), call)
	}
}
