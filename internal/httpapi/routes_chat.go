package httpapi

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/chat"
)

const maxMessageBody = 2 << 20 // a message of 1 MiB with its escapes

// chatService gives what answers messages.
func (a *API) chatService() (*chat.Service, error) {
	if a.opts.Chat == nil {
		return nil, errNoSessions()
	}
	return a.opts.Chat, nil
}

type accepted202[T any] struct {
	Status int
	Body   T
}

func (a *API) chatRoutes() {
	tags := []string{tagSessions}
	const path = "/v1/sessions/{session_id}"
	register(a, huma.Operation{
		OperationID: "send-message", Method: http.MethodPost, Path: path + "/messages", Tags: tags, DefaultStatus: http.StatusAccepted, MaxBodyBytes: maxMessageBody,
		Summary: "Ask the model",
		Description: "The answer, with the code it runs, comes by the session's events. While the model works on an earlier message, this one waits in the queue. " +
			"With replaces, the message takes the place of an earlier one, which becomes another branch with its answers; that can't wait.\n\n" +
			"Failures: 400 `message-empty`; 404 `item-not-found`, `model-not-found`; 409 `turn-running`, `not-a-message`; 429 `queue-full`; 503 `model-none`.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.SendMessage
	},
	) (*accepted202[chat.Sent], error) {
		return a.startTurn(ctx, in.SessionID, func(svc *chat.Service) (chat.Sent, error) {
			return svc.Send(ctx, in.SessionID, in.Body)
		})
	})
	register(a, huma.Operation{
		OperationID: "regenerate-answer", Method: http.MethodPost, Path: path + "/items/{item_id}/regenerate", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Ask the model again", Description: "The item is one of an answer, or the message. The new answer is another branch.\n\nFailures: 409 `turn-running`, `nothing-to-regenerate`; 503 `model-none`.",
	}, func(ctx context.Context, in *struct {
		ItemPath
		Body *v1.Regenerate
	},
	) (*accepted202[chat.Sent], error) {
		model := ""
		if in.Body != nil {
			model = in.Body.Model
		}
		return a.startTurn(ctx, in.SessionID, func(svc *chat.Service) (chat.Sent, error) {
			return svc.Regenerate(ctx, in.SessionID, in.ItemID, model)
		})
	})
	register(a, huma.Operation{
		OperationID: "continue-answer", Method: http.MethodPost, Path: path + "/continue", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Let the model go on where it was stopped, cut or failed", Description: "Failures: 409 `turn-running`, `nothing-to-continue`; 503 `model-none`.",
	}, func(ctx context.Context, in *SessionPath) (*accepted202[chat.Sent], error) {
		return a.startTurn(ctx, in.SessionID, func(svc *chat.Service) (chat.Sent, error) {
			return svc.Continue(ctx, in.SessionID)
		})
	})
	register(a, huma.Operation{
		OperationID: "stop-answer", Method: http.MethodPost, Path: path + "/stop", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Stop the model, and the code it runs", Description: "At once; what it said so far stays. A message that waits in the queue is answered next. Stopping what does not run is no failure.",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		note(ctx, slog.String("session_id", in.SessionID))
		svc, err := a.chatService()
		if err == nil {
			_, err = a.session(ctx, in.SessionID)
		}
		if err == nil {
			_, err = svc.Stop(ctx, in.SessionID)
		}
		return nil, err
	})
	register(a, huma.Operation{
		OperationID: "remove-queued-message", Method: http.MethodDelete, Path: path + "/queue/{message_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Take a waiting message back", Description: "Failures: 404 `message-not-found`.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		MessageID string `path:"message_id" maxLength:"64"`
	},
	) (*struct{}, error) {
		svc, err := a.chatService()
		if err == nil {
			_, err = a.session(ctx, in.SessionID)
		}
		if err != nil {
			return nil, err
		}
		return nil, svc.RemoveQueued(ctx, in.SessionID, in.MessageID)
	})
}

func (a *API) startTurn(ctx context.Context, sessionID string, start func(*chat.Service) (chat.Sent, error)) (*accepted202[chat.Sent], error) {
	note(ctx, slog.String("session_id", sessionID))
	svc, err := a.chatService()
	if err == nil {
		_, err = a.session(ctx, sessionID)
	}
	if err != nil {
		return nil, err
	}
	sent, err := start(svc)
	if err != nil {
		return nil, err
	}
	note(ctx, slog.String("turn_id", sent.TurnID))
	return &accepted202[chat.Sent]{http.StatusAccepted, sent}, nil
}
