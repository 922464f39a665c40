import preact from '@preact/preset-vite';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [preact()],
  // Relative, so that the page also works behind a proxy that adds a path.
  base: './',
  build: { outDir: '../../../dist/web', emptyOutDir: true, target: 'es2022' },
});
