package embedded

import "syscall"

// SetRootBase moves the place of unreachable directories: tests leave
// /var/lib alone.
func SetRootBase(dir string) { rootBase = dir }

// Dir is where the data really is.
func (s *Server) Dir() string { return s.place.home }

// LockTwice locks a file, lets go of it while a child that is being started has it open as
// well, and locks it again.
func LockTwice(path string) error {
	first, err := holdLock(path, path)
	if err != nil {
		return err
	}
	inherited, err := syscall.Dup(int(first.Fd()))
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(inherited) }()
	letGo(first)
	second, err := holdLock(path, path)
	if err == nil {
		letGo(second)
	}
	return err
}
