package hogstream

import (
	"errors"
	"os"
	"strings"
)

// bootID is different after each start of the kernel, and the same in all its
// containers.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if id := strings.TrimSpace(string(text)); id != "" {
		return id, nil
	}
	return "", errors.New("boot_id is empty")
}
