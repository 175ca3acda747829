package program

// StartFrom has workers started from another executable.
func (w *Workers) StartFrom(path string) { w.path = path }

// Title is how a worker is called in a list of processes.
const Title = workerTitle
