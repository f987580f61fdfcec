/** Whether this server tells what people use. */
export function useUsageRoute(): boolean {
  return false;
}
