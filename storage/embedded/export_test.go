package embedded

// SetRootBase moves the place of unreachable directories: tests leave
// /var/lib alone.
func SetRootBase(dir string) { rootBase = dir }
