//go:build unix

package sinks

import "syscall"

// alive says whether an idle connection can take a request. One that the receiver
// has ended can be read from, and so can one on which it says something unasked;
// neither is used again. The socket is asked without waiting.
func (c *connection) alive() bool {
	if c.raw == nil {
		return true
	}
	quiet := false
	err := c.raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, err := syscall.Read(int(fd), one[:])
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR
		return true
	})
	return err == nil && quiet
}
