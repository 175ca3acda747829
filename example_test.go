package hogstream_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/hogstream/hogstream"
)

// Hogstream within a program: all parts in one process, broker and Postgres included.
// On servers, New and Run take the place of RunDev. examples/embed adds a kind of
// destination, too.
func ExampleRunDev() {
	dir, err := os.MkdirTemp("", "hogstream-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.DataDir, cfg.HTTP.Addr, cfg.Log.Level = dir, "127.0.0.1:0", "error"

	servedBy := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Served-By", "Acme")
			next.ServeHTTP(w, r)
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err = hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		resp, err := http.Get(r.URL + "/v1/health/live")
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("X-Served-By"))
	}, hogstream.WithMiddleware(servedBy))
	if err != nil {
		fmt.Println(err)
	}
	// Output: 200 Acme
}
