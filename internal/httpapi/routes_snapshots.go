package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// SnapshotPath is the part of an input that names a snapshot.
type SnapshotPath struct {
	Snapshot string `path:"snapshot" maxLength:"64" doc:"Id or name of the snapshot" example:"prepared"`
}

func viewSnapshot(s sandbox.Snapshot) v1.Snapshot {
	return v1.Snapshot{
		ID: string(s.ID), Name: s.Name, Template: s.Template, Image: s.Image, SandboxID: string(s.Sandbox),
		Memory: s.Memory, MemoryBytes: s.MemoryBytes, FilesBytes: s.FilesBytes, CreatedAt: s.CreatedAt,
	}
}

func (a *API) snapshotRoutes() {
	tags := []string{tagSnapshots}
	register(a, huma.Operation{
		OperationID: "list-snapshots", Method: http.MethodGet, Path: "/v1/snapshots", Tags: tags,
		Summary: "List the snapshots, newest first", Description: "Where the driver can make none the list is empty.",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.SnapshotList], error) {
		snapshots, err := a.fleet.SnapshotsFor(ctx, identity.From(ctx).Owns)
		if err != nil {
			return nil, err
		}
		list := v1.SnapshotList{Snapshots: []v1.Snapshot{}}
		for _, s := range snapshots {
			list.Snapshots = append(list.Snapshots, viewSnapshot(s))
		}
		return &answer[v1.SnapshotList]{list}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-snapshot", Method: http.MethodGet, Path: "/v1/snapshots/{snapshot}", Tags: tags,
		Summary: "Get a snapshot", Description: "Failures: 404 `snapshot-not-found`.",
	}, func(ctx context.Context, in *SnapshotPath) (*answer[v1.Snapshot], error) {
		s, err := a.snapshot(ctx, in.Snapshot)
		if err != nil {
			return nil, err
		}
		return &answer[v1.Snapshot]{viewSnapshot(s)}, nil
	})
	register(a, huma.Operation{
		OperationID: "delete-snapshot", Method: http.MethodDelete, Path: "/v1/snapshots/{snapshot}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a snapshot", Description: "Sandboxes that were made from it stay. Failures: 404 `snapshot-not-found`.",
	}, func(ctx context.Context, in *SnapshotPath) (*struct{}, error) {
		s, err := a.snapshot(ctx, in.Snapshot)
		if err != nil {
			return nil, err
		}
		return nil, a.fleet.DeleteSnapshot(ctx, string(s.ID))
	})
}
