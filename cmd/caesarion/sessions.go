package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/replica"
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

// sessions is all that people come back to.
type sessions struct {
	files   *workspace.Workspace
	service *session.Service
	chat    *chat.Service
}

// openStore opens the database of the sessions: Postgres if the settings name
// one, else a file of the data directory. With an address for other servers
// this one becomes a replica.
func openStore(ctx context.Context, opts serverOptions) (*store.Store, *replica.Registry, error) {
	address, err := opts.cfg.DatabaseURL()
	if err != nil {
		return nil, nil, err
	}
	storeOpts := store.Options{Logger: opts.log, NoMigrate: !opts.cfg.Migrate}
	if address == "" {
		if opts.cfg.ReplicaAddress != "" {
			return nil, nil, errdefs.New(errdefs.ErrInvalid, config.CodeInvalid, "replica_address: several servers need one database").
				WithHint("give the address of Postgres in database_url_file or %s", config.DatabaseURLEnv)
		}
		st, err := store.Open(ctx, filepath.Join(opts.base.DataDir, databaseFile), storeOpts)
		return st, nil, err
	}
	if opts.cfg.ReplicaAddress != "" {
		storeOpts.Replica = replica.NewID(hostName())
	}
	st, err := store.OpenPostgres(ctx, address.Reveal(), storeOpts)
	if err != nil || storeOpts.Replica == "" {
		return st, nil, err
	}
	replicas, err := replica.Open(ctx, st.DB(), replica.Options{ID: storeOpts.Replica, Address: opts.cfg.ReplicaAddress, Logger: opts.log})
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return st, replicas, nil
}

// hostName names this process for people: in a cluster it is the pod's name.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "server"
	}
	return name
}

// openSessions takes over the sessions of an earlier server. The fleet must
// have adopted its sandboxes already.
func openSessions(ctx context.Context, s *server, opts serverOptions) (*sessions, error) {
	files, err := workspace.New(filepath.Join(opts.base.DataDir, sessionsDir), s.store, workspaceOptions(opts))
	if err != nil {
		return nil, err
	}
	undo := cleanup.Make(func() { _ = files.Close() })
	defer undo.Clean()
	svc, err := session.New(ctx, s.fleet, s.store, session.Options{
		Files:    files,
		Replicas: s.replicas,
		Logger:   opts.log,
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
	answers, err := openChat(svc, s, opts)
	if err != nil {
		return nil, err
	}
	undo.Release()
	return &sessions{files: files, service: svc, chat: answers}, nil
}

// openChat makes what answers messages.
func openChat(svc *session.Service, s *server, opts serverOptions) (*chat.Service, error) {
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
	var may chat.Limits // a nil Service in it would not be nil
	if s.limits != nil {
		may = limiter{s.limits}
	}
	_, template := s.fleet.Templates()
	return chat.New(svc, models, chat.Options{
		Limits:       may,
		SystemPrompt: prompt,
		MaxRounds:    opts.cfg.ChatMaxRounds,
		RoundTimeout: opts.cfg.ChatRoundTimeout.Std(),
		ToolTimeout:  opts.cfg.ChatToolTimeout.Std(),
		WeatherURL:   opts.cfg.WeatherBaseURL,
		Network:      s.fleet.Network(template),
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
	return errors.Join(s.service.Close(), s.files.Close())
}
