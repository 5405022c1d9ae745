use tapeflow::*;
#[test]
fn a() -> Result<()> {
    let sh=[4usize,2];
    let dat=|k:f64| Tensor::from_vec((0..8).map(|i| k+i as f64).collect::<Vec<f64>>(), sh);
    let run = || -> Result<f64> {
      let (x,y)=(dat(1.0),dat(10.0));
      let v=|t:&Tensor| t.slice_step(0,1..,2);
      let f=(v(&x)*v(&y)).sum();
      let g=grad(&f,&[&x,&y])?;
      let s=g[0].sum()+ (&g[1]).sum();
      println!("{:?} {:?}", g[0].dtype(), g[1].shape());
      Ok(s.item::<f64>()?)
    };
    println!("cpu {}", run()?);
    println!("unfused {}", without_fusion(|| run())?);
    println!("ref {}", Device::reference().scope(|| run())?);
      let (x,y)=(dat(1.0),dat(10.0));
      let v=|t:&Tensor| t.slice_step(0,1..,2);
      let f=(v(&x)*v(&y)).sum();
      let g=grad(&f,&[&x,&y])?;
      println!("{:?}", (&g[0]*1.0).to_vec::<f64>()?);
      println!("{:?}", (&g[1]).to_vec::<f64>()?);
      println!("{:?}", (&g[1]).sum().item::<f64>()?);
    Ok(())
}
