export function App() {
  return <main>Caesarion</main>;
}
