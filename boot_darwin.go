package hogstream

import "golang.org/x/sys/unix"

// bootID is different after each start of the kernel.
func bootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }
