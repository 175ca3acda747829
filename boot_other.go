//go:build !linux && !darwin

package hogstream

import "errors"

// bootID has no answer here, so a restart waits for the leases of its former process.
func bootID() (string, error) { return "", errors.New("not known on this system") }
