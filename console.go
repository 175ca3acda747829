package hogstream

import "net/http"

// console makes the admin API.
func (a *App) console() (http.Handler, error) { return nil, nil }
