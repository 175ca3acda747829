package storage

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// That the kernel heeds it cannot be seen without taking an address away under a
// connection, which takes rights that a test does not have.
func TestAConnectionGivesAServerUpThatAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dial := poolConfig(Config{URL: "postgres://user@somewhere/db"}.withDefaults(), options{}).ConnConfig.DialFunc
	conn, err := dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	var timeout int
	require.NoError(t, raw.Control(func(fd uintptr) {
		timeout, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}))
	require.NoError(t, err)
	require.EqualValues(t, ackTimeout.Milliseconds(), timeout)
}
