package hogstream

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Running says where the parts of a developer's instance are, so that the
// command line finds them without being told. It stands in running.json of the
// data directory while the instance runs.
type Running struct {
	PID           int      `json:"pid"`
	URL           string   `json:"url"`
	APIKey        string   `json:"apiKey"`
	Brokers       []string `json:"brokers"`
	Registry      string   `json:"registry"`
	Database      string   `json:"database"`
	EncryptionKey string   `json:"encryptionKey"`
	Partitions    int32    `json:"partitions"`
}

func runningPath(dataDir string) string { return filepath.Join(dataDir, "running.json") }

// ReadRunning reads where the instance on dataDir is. os.ErrNotExist when none runs.
func ReadRunning(dataDir string) (*Running, error) {
	b, err := os.ReadFile(runningPath(dataDir))
	if err != nil {
		return nil, err
	}
	var r Running
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", runningPath(dataDir), err)
	}
	return &r, nil
}

// write keeps r in dataDir, readable by its owner only, for it holds a key.
func (r *Running) write(dataDir string) error {
	b, err := json.MarshalIndent(r, "", "  ") //nolint:gosec // the key is for the command line of the same user; mode 0600
	if err != nil {
		return err
	}
	return os.WriteFile(runningPath(dataDir), append(b, '\n'), 0o600)
}

// FillIn sets what cfg leaves open.
func (r *Running) FillIn(cfg *Config) {
	if len(cfg.Kafka.Brokers) == 0 {
		cfg.Kafka.Brokers = r.Brokers
		cfg.Kafka.Partitions = r.Partitions
	}
	if cfg.Registry.URL == "" {
		cfg.Registry.URL = r.Registry
	}
	if cfg.Database.URL == "" {
		cfg.Database.URL = r.Database
	}
	if cfg.EncryptionKey == "" {
		cfg.EncryptionKey = r.EncryptionKey
	}
}
