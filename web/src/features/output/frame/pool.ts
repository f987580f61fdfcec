// Frames are whole documents. Those out of sight give way when there are many,
// the one seen longest ago first; their place keeps its height.

interface Member {
  visible: boolean;
  seen: number;
  release(): void;
}

export const maxFrames = 12;

const members = new Set<Member>();

export function join(release: () => void): Member {
  const member: Member = { visible: true, seen: performance.now(), release };
  members.add(member);
  trim();
  return member;
}

export function leave(member: Member): void {
  members.delete(member);
}

export function sight(member: Member, visible: boolean): void {
  member.visible = visible;
  member.seen = performance.now();
  if (!visible) trim();
}

function trim(): void {
  const hidden = [...members].filter((m) => !m.visible).sort((a, b) => a.seen - b.seen);
  for (const member of hidden) {
    if (members.size <= maxFrames) return;
    members.delete(member);
    member.release();
  }
}

export type { Member };
