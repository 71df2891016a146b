package main

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/terminal"
)

// newLogger writes to w, standard error outside tests.
func newLogger(cfg config.Log, w zapcore.WriteSyncer) *zap.Logger {
	return newLoggerAt(app.LogLevel(cfg), cfg, w)
}

// newLoggerAt is newLogger with a level that may change.
func newLoggerAt(level zapcore.LevelEnabler, cfg config.Log, w zapcore.WriteSyncer) *zap.Logger {
	return zap.New(zapcore.NewCore(newEncoder(cfg), zapcore.Lock(zapcore.AddSync(terminal.LogLines{W: w})), level))
}

func newEncoder(cfg config.Log) zapcore.Encoder {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey = "time"
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	if cfg.Format == "console" {
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(enc)
	}
	return zapcore.NewJSONEncoder(enc)
}

// reportGaps adds a line to the log where lines of it are missing.
func reportGaps(w *logwriter.Writer, cfg config.Log) {
	encoder := newEncoder(cfg)
	w.ReportGaps(func(lost int64) []byte {
		line, err := encoder.EncodeEntry(zapcore.Entry{Level: zap.WarnLevel, Time: time.Now(),
			Message: "log lines were dropped: the log was not read or could not be written; see what reads standard error, and how fast"},
			[]zap.Field{zap.Int64("lines", lost)})
		if err != nil {
			return nil
		}
		return line.Bytes()
	})
}

// logFor resolves log.format auto for the output of the log: console on a
// terminal, json elsewhere.
func logFor(cfg config.Log, w io.Writer) config.Log {
	if cfg.Format == "auto" {
		cfg.Format = "json"
		if terminal.IsTerminal(w) {
			cfg.Format = "console"
		}
	}
	return cfg
}
