package hogstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/uptrace/opentelemetry-go-extra/otelzap"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Telemetry is where a process says what it does: logs, metrics, traces.
type Telemetry struct {
	Logger  *otelzap.Logger
	Metrics *prometheus.Registry

	traces     *sdktrace.TracerProvider
	restoreLog func()
}

// NewTelemetry sets up logs (to stderr), a metrics registry of its own, and
// traces when an OTLP endpoint is configured. It sets the process's tracer
// provider and W3C propagation, and has what libraries write to the standard logger
// (net/http does, of receivers that speak unasked) logged for debugging. Neither logs
// nor traces hold what errors quote of records. Close it to flush.
func NewTelemetry(ctx context.Context, cfg LogConfig, instance string) (*Telemetry, error) {
	logger, err := newLogger(cfg)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		Logger:  otelzap.New(logger.With(zap.String("instance", instance)), otelzap.WithMinLevel(zap.WarnLevel)),
		Metrics: prometheus.NewRegistry(),
	}
	if t.restoreLog, err = zap.RedirectStdLogAt(t.Logger.Logger, zap.DebugLevel); err != nil {
		return nil, fmt.Errorf("redirect the standard logger: %w", err)
	}
	t.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	if cfg.OTLPEndpoint == "" {
		return t, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(cfg.OTLPEndpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT %s: %w", cfg.OTLPEndpoint, err)
	}
	t.traces = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(discreetExporter{exporter}),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "hogstream"),
			attribute.String("service.instance.id", instance),
			attribute.String("service.version", Version),
		)),
	)
	otel.SetTracerProvider(t.traces)
	return t, nil
}

// Close flushes what is still to be exported.
func (t *Telemetry) Close(ctx context.Context) error {
	t.restoreLog()
	var err error
	if t.traces != nil {
		err = t.traces.Shutdown(ctx)
	}
	_ = t.Logger.Sync() // stderr of a terminal cannot be synced; nothing is lost
	return err
}

func newLogger(cfg LogConfig) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("LOG_LEVEL %q: use debug, info, warn or error", cfg.Level)
	}
	to := os.Stderr
	if cfg.File != "" {
		// It is open until the process ends: whatever ends it, its last line is written.
		if to, err = os.OpenFile(cfg.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("LOG_FILE: %w", err)
		}
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.TimeKey, enc.MessageKey = "time", "msg"
	var encoder zapcore.Encoder
	switch {
	case cfg.Format == "console", cfg.Format == "auto" && isTerminal(to):
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder(enc)
	case cfg.Format == "json", cfg.Format == "auto", cfg.Format == "":
		encoder = zapcore.NewJSONEncoder(enc)
	default:
		return nil, errors.New("LOG_FORMAT: use json, console or auto")
	}
	return zap.New(discreetCore{zapcore.NewCore(encoder, zapcore.Lock(to), level)}), nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
