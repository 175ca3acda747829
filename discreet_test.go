package hogstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// planted is a value of a record, which no log line and no span may hold.
const planted = "planted@example.com"

// quotingErrors are errors of all kinds that quote their input.
func quotingErrors(t *testing.T) []error {
	t.Helper()
	db := storagetest.New(t)
	_, err := storagetest.SQL(db).Exec(t.Context(), `CREATE TABLE people (email text PRIMARY KEY CHECK (length(email) < 50))`)
	require.NoError(t, err)
	_, err = storagetest.SQL(db).Exec(t.Context(), `INSERT INTO people VALUES ($1)`, planted)
	require.NoError(t, err)
	all := []error{}
	note := func(err error) {
		require.Error(t, err)
		all = append(all, err)
	}
	_, err = storagetest.SQL(db).Exec(t.Context(), `INSERT INTO people VALUES ($1)`, planted)
	note(err)
	_, err = storagetest.SQL(db).Exec(t.Context(), `INSERT INTO people VALUES ($1)`, strings.Repeat(planted, 5))
	note(err)
	_, err = storagetest.SQL(db).Exec(t.Context(), `SELECT $1::text::uuid`, planted)
	note(err)
	_, err = storagetest.SQL(db).Exec(t.Context(), `SELECT $1::text::timestamptz`, planted)
	note(err)
	note(db.InTx(t.Context(), func(tx *storage.Tx) error {
		_, err := storagetest.SQL(tx).Exec(t.Context(), `SELECT $1::text::json`, `{"email":`+planted)
		return err
	}))
	_, err = strconv.Atoi(planted)
	note(err)
	_, err = time.Parse(time.RFC3339, planted)
	note(err)
	note(json.Unmarshal([]byte("1"+strings.Repeat("0", 30)), new(int)))
	_, err = url.Parse(strings.Join([]string{"http://[", planted}, ""))
	note(err)
	_, err = (&http.Client{}).Get("nowhere://x/?email=" + url.QueryEscape(planted)) //nolint:bodyclose // fails
	note(err)
	return all
}

func TestAnErrorInTheLogQuotesNothing(t *testing.T) {
	for _, cause := range quotingErrors(t) {
		for _, err := range []error{cause, fmt.Errorf("apply record 7: %w", cause), errors.Join(errors.New("first"), fmt.Errorf("second: %w", cause))} {
			var out bytes.Buffer
			core := discreetCore{zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.DebugLevel)}
			logger := zap.New(core)
			logger.Error("failed", zap.String("id", "r1"), zap.Error(err))
			logger.With(zap.NamedError("cause", err)).Info("later")
			require.Equal(t, 2, strings.Count(out.String(), "\n"))
			require.NotContains(t, out.String(), "planted", "%T", cause)
			require.NotContains(t, out.String(), strings.Repeat("0", 30), "%T", cause)
			require.Contains(t, out.String(), `"id":"r1"`)
		}
	}
}

func TestAnErrorKeepsWhatItSaysBesideItsInput(t *testing.T) {
	_, err := strconv.Atoi(planted)
	require.Equal(t, "partition: Atoi: invalid syntax", discreet(fmt.Errorf("partition: %w", err)))
	require.Equal(t, "cannot reach the broker", discreet(errors.New("cannot reach the broker")))
}

func TestASpanIsExportedWithoutTextsOfErrorsAndPaths(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(discreetExporter{kept}))
	for _, scope := range []string{"github.com/exaring/otelpgx", ownScope + "sinks"} {
		_, span := provider.Tracer(scope).Start(t.Context(), "work", trace.WithAttributes(
			attribute.String("url.path", "/v1/admin/contacts/"+planted), attribute.String("url.query", "email="+planted), attribute.String("kept", "yes")))
		span.RecordError(errors.New(planted))
		description := "HTTP 400"
		if !strings.HasPrefix(scope, ownScope) {
			description = planted
		}
		span.SetStatus(codes.Error, description)
		span.End()
	}
	require.NoError(t, provider.ForceFlush(t.Context()))
	spans := kept.GetSpans()
	require.Len(t, spans, 2)
	text := fmt.Sprintf("%+v", spans)
	require.NotContains(t, text, "planted")
	require.Contains(t, text, "kept")
	require.Empty(t, spans[0].Status.Description)
	require.Equal(t, "HTTP 400", spans[1].Status.Description)
}
