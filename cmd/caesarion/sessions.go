package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/workspace"
)

// Where sessions are, in the data directory.
const (
	databaseFile = "caesarion.db"
	sessionsDir  = "sessions"
)

// defaultModelTimeout bounds the question which model is the default: it may
// look for local servers, and a new session must not wait for one that hangs.
const defaultModelTimeout = 2 * time.Second

// sessions is all that keeps what people come back to.
type sessions struct {
	store   *store.Store
	files   *workspace.Workspace
	service *session.Service
	chat    *chat.Service
}

// openSessions opens the database and takes over the sessions of an earlier
// server. The fleet must have adopted its sandboxes already.
func openSessions(ctx context.Context, fl *fleet.Fleet, opts serverOptions) (*sessions, error) {
	st, err := store.Open(ctx, filepath.Join(opts.base.DataDir, databaseFile), store.Options{Logger: opts.log})
	if err != nil {
		return nil, err
	}
	undo := cleanup.Make(func() { _ = st.Close() })
	defer undo.Clean()
	files, err := workspace.New(filepath.Join(opts.base.DataDir, sessionsDir), st, workspaceOptions(opts))
	if err != nil {
		return nil, err
	}
	undo.Add(func() { _ = files.Close() })
	svc, err := session.New(ctx, fl, st, session.Options{
		Files:  files,
		Logger: opts.log,
		DefaultModel: func() string {
			if opts.models == nil {
				return ""
			}
			ctx, cancel := context.WithTimeout(context.Background(), defaultModelTimeout)
			defer cancel()
			return opts.models.Default(ctx)
		},
	})
	if err != nil {
		return nil, err
	}
	undo.Add(func() { _ = svc.Close() })
	answers, err := openChat(svc, opts)
	if err != nil {
		return nil, err
	}
	answers.AnswerWaiting()
	undo.Release()
	return &sessions{store: st, files: files, service: svc, chat: answers}, nil
}

// openChat makes what answers messages.
func openChat(svc *session.Service, opts serverOptions) (*chat.Service, error) {
	prompt := ""
	if file := opts.cfg.ChatSystemPromptFile; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, errdefs.New(errdefs.ErrInvalid, "system-prompt-unreadable", "The file of the system prompt can't be read: %v.", err).
				WithHint("check chat_system_prompt_file")
		}
		prompt = string(text)
	}
	models := opts.models
	if models == nil {
		models = llm.NewRegistry(nil, llm.RegistryOptions{})
	}
	return chat.New(svc, models, chat.Options{
		SystemPrompt: prompt,
		MaxRounds:    opts.cfg.ChatMaxRounds,
		RoundTimeout: opts.cfg.ChatRoundTimeout.Std(),
		ToolTimeout:  opts.cfg.ChatToolTimeout.Std(),
		WeatherURL:   opts.cfg.WeatherBaseURL,
		Logger:       opts.log,
	})
}

// workspaceOptions gives the bounds of files that are kept.
func workspaceOptions(opts serverOptions) workspace.Options {
	return workspace.Options{
		UploadMaxBytes:   int64(opts.cfg.UploadMaxBytes),
		UploadExtensions: opts.cfg.UploadExtensions,
		Logger:           opts.log,
	}
}

// close ends the sessions. It comes before the fleet's, so that what is left
// to write about runs is written.
func (s *sessions) close() error {
	if s == nil {
		return nil
	}
	s.chat.Close() // it works in the sessions
	return errors.Join(s.service.Close(), s.files.Close(), s.store.Close())
}
