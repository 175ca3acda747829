package embedded

// SetRootBase moves the place of unreachable directories: tests leave
// /var/lib alone.
func SetRootBase(dir string) { rootBase = dir }

// Dir is where the data really is.
func (s *Server) Dir() string { return s.place.home }
