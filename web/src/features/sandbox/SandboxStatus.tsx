export function SandboxStatus() {
  return null;
}
