package storage

import (
	"net"
	"syscall"
	"time"
)

// ackTimeout is how long a server may leave unacknowledged what was sent to it. Without
// it Linux goes on sending for a quarter of an hour to a machine that is gone, and a
// statement waits as long although there is a new server at the same name. It says
// nothing about how long a statement takes: a kernel acknowledges for a busy process.
const ackTimeout = 30 * time.Second

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT of linux/tcp.h

// newDialer makes connections that notice when the server's machine is gone.
func newDialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: ackTimeout / 2, Interval: ackTimeout / 6, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			return c.Control(func(fd uintptr) {
				// A connection without it is better than none.
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(ackTimeout.Milliseconds()))
			})
		},
	}
}
